"""Each built-in reward on completions whose reward is known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.errors import DataError
from rlhf_cluster.rewards.exact_match import exact_match
from rlhf_cluster.rewards.length import length, overlong
from rlhf_cluster.rewards.number_match import last_number, number_match
from rlhf_cluster.rewards.regex import regex
from rlhf_cluster.rewards.sample import RewardSample
from rlhf_cluster.rewards.vader import vader


def sample(completion: str, *, num_tokens: int = 4, prompt: str = "", **item) -> RewardSample:
    return RewardSample(prompt=prompt, completion=completion, finish_reason="stop", num_tokens=num_tokens, item=item)


def test_vader_gives_the_compound_score_of_the_completion_alone():
    assert vader(sample("The film was great.", prompt="A horrible, awful evening. ")) == pytest.approx(0.6249)
    assert vader(sample("The film was great.", prompt="Awful. "), whole_text=True) < 0.6249
    assert vader(sample("It was horrible.")) < -0.5
    assert vader(sample("")) == 0.0


@pytest.mark.parametrize(
    ("completion", "where", "expected"),
    [
        ("<think>a\nb</think> <answer>4</answer>", "whole", 1.0),
        ("  <think>a</think><answer>4</answer>\n", "whole", 1.0),
        ("<think>a</think><answer>4</answer> and more", "whole", 0.0),
        ("<think>a</think><answer>4</answer> and more", "start", 1.0),
        ("well: <think>a</think><answer>4</answer> and more", "start", 0.0),
        ("well: <think>a</think><answer>4</answer> and more", "anywhere", 1.0),
    ],
)
def test_regex_says_whether_the_completion_has_the_format(completion, where, expected):
    pattern = r"<think>.+</think>\s*<answer>.+</answer>"
    assert regex(sample(completion), pattern=pattern, where=where) == expected


def test_regex_names_the_allowed_places():
    with pytest.raises(ValueError, match="whole, start, anywhere"):
        regex(sample("a"), pattern="a", where="end")


def test_exact_match_ignores_white_space_and_on_request_case():
    assert exact_match(sample("  New\n York ", answer="New York")) == 1.0
    assert exact_match(sample("new york", answer="New York")) == 0.0
    assert exact_match(sample("new york", answer="New York"), ignore_case=True) == 1.0
    assert exact_match(sample("4", label=4), answer_column="label") == 1.0


def test_a_missing_column_is_an_error_that_names_the_columns():
    with pytest.raises(DataError, match=r"no column 'answer' \(columns: 'label', 'id'\)"):
        exact_match(sample("4", label=4, id=1))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7.", 7.0),
        ("it costs $1,234.50", 1234.5),
        ("1, 2, 3", 3.0),
        ("10-5", 5.0),
        ("x = -5", -5.0),
        ("x = \u22125", -5.0),
        ("(-2)", -2.0),
        ("about .5", 0.5),
        ("2e-3 m", 0.002),
        ("#### 72", 72.0),
        ("7.", 7.0),
        ("12,34", 34.0),
        ("none at all", None),
        ("9e999", None),
    ],
)
def test_last_number_reads_numbers_as_people_write_them(text, number):
    assert last_number(text) == number


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_last_number_reads_back_every_number_that_python_writes(number):
    assert last_number(f"so the answer is {number!r}.") == number


@settings(deadline=None)
@given(st.integers(min_value=-(10**12), max_value=10**12))
def test_last_number_reads_thousands_separators(number):
    assert last_number(f"we get {number:,}") == number


def test_number_match_compares_the_last_numbers_within_the_tolerance():
    assert number_match(sample("first 3, then 72", answer="48 + 24 = #### 72")) == 1.0
    assert number_match(sample("72 or 73", answer="72")) == 0.0
    assert number_match(sample("no idea", answer=72)) == 0.0
    assert number_match(sample("3.14", answer=math.pi)) == 0.0
    assert number_match(sample("3.14", answer=math.pi), tolerance=1e-2) == 1.0


def test_number_match_calls_an_answer_without_a_number_a_fault_of_the_data():
    with pytest.raises(DataError, match="'many'"):
        number_match(sample("3", answer="many"))


@pytest.mark.parametrize(("num_tokens", "expected"), [(10, 1.0), (12, 1.0), (17, 0.5), (7, 0.9), (22, 0.0), (90, 0.0)])
def test_length_falls_linearly_beyond_the_tolerance(num_tokens, expected):
    assert length(sample("", num_tokens=num_tokens), target=10, tolerance=2) == pytest.approx(expected)


def test_length_counts_in_other_units_too():
    assert length(sample("two words", num_tokens=9), target=2, unit="words") == 1.0
    assert length(sample("four", num_tokens=9), target=4, unit="chars") == 1.0


@pytest.mark.parametrize(("num_tokens", "expected"), [(0, 0.0), (80, 0.0), (85, -0.25), (100, -1.0), (300, -1.0)])
def test_overlong_is_the_soft_punishment_of_dapo(num_tokens, expected):
    assert overlong(sample("", num_tokens=num_tokens), max_tokens=100, margin_tokens=20) == expected


def test_word_world_gives_the_rubric_of_the_data():
    word_world_data = pytest.importorskip("rlhf_cluster.data.word_world")
    from rlhf_cluster.rewards.word_world import word_world

    reward = word_world(sample("five", prompt="what is two plus three ?"))
    assert reward == word_world_data.gold("what is two plus three ?", "five")
    assert -2.0 <= reward <= 2.0


def test_reasoning_gym_scores_with_the_task_s_own_verifier():
    gym = pytest.importorskip("reasoning_gym")
    from rlhf_cluster.rewards.reasoning_gym import reasoning_gym

    entry = gym.create_dataset("chain_sum", size=1, seed=0)[0]
    row = {"dataset": "chain_sum", "entry": entry}
    assert reasoning_gym(sample(entry["answer"], **row)) == 1.0
    assert reasoning_gym(sample("nonsense", **row)) < 0.1
    tagged = sample(f"so <answer>{entry['answer']}</answer>", **row)
    assert reasoning_gym(tagged, answer_pattern="<answer>(.+?)</answer>") == 1.0
