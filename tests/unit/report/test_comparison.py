"""Win rates, differences and the prompts that are shown, by hand."""

from __future__ import annotations

import math

import pytest

from rlhf_cluster.data import word_world
from rlhf_cluster.errors import ConfigError, DataError
from rlhf_cluster.report.comparison import NUM_EACH, choose, compare
from rlhf_cluster.report.evaluations import read_evaluations
from rlhf_cluster.report.judging import judged, read_judge
from rlhf_cluster.report.report import make_report


def test_a_win_rate_is_over_prompts_and_pairs_with_ties_half(evaluated):
    sft = evaluated("sft", [("a", [0.0, 1.0]), ("b", [1.0]), ("only here", [5.0])])
    ppo = evaluated("ppo", [("b", [1.0]), ("a", [1.0, 2.0, math.nan])])
    theirs, ours = read_evaluations([sft, ppo])
    found = compare(ours, theirs, by="gold", seed=0)
    assert found.num_prompts == 2
    assert found.win_rate.value == pytest.approx(((1 + 0.5 + 1 + 1) / 4 + 0.5) / 2)
    assert found.difference.value == pytest.approx(((1.5 - 0.5) + 0.0) / 2)
    back = compare(theirs, ours, by="gold", seed=0)
    assert back.win_rate.value == pytest.approx(1 - found.win_rate.value)


def test_evaluations_of_different_prompts_are_refused(evaluated):
    one, other = read_evaluations([evaluated("sft", [("a", [0.0])]), evaluated("ppo", [("b", [0.0])])])
    with pytest.raises(DataError, match="ppo and sft have no prompt in common"):
        compare(other, one, by="gold", seed=0)


def test_gold_and_proxy_are_found_by_name_and_an_unknown_reward_is_refused(evaluated):
    evaluations = read_evaluations([evaluated("sft", [("a", [0.0])])])
    made = make_report(evaluations, proxy=None)
    assert (made.by, made.proxy, made.compared) == ("gold", "proxy", ())
    assert make_report(evaluations, by="proxy", proxy=None).proxy == "gold"
    with pytest.raises(ConfigError, match=r"no reward 'gild'.*did you mean 'gold'.*reward, gold, proxy"):
        make_report(evaluations, by="gild", proxy=None)


def test_no_prompt_is_shown_twice_and_gains_and_losses_are_the_largest(evaluated):
    before = [(f"p{number}", [0.0]) for number in range(20)]
    after = [(f"p{number}", [float(number - 10)]) for number in range(20)]
    sft, ppo = read_evaluations([evaluated("sft", before), evaluated("ppo", after)])
    shown = choose([sft, ppo], baseline=sft, by="gold")
    prompts = {why: [each.prompt for each in shown if each.why == why] for why in dict.fromkeys(e.why for e in shown)}
    assert list(prompts.values()) == [
        ["p0", "p1", "p2"],
        ["p19", "p18", "p17"],
        ["p3", "p4", "p5"],
        ["p16", "p15", "p14"],
        ["p6", "p7", "p8"],
    ]
    assert all(len(found) == NUM_EACH for found in prompts.values())
    assert [each.means for each in shown if each.prompt == "p19"] == [(0.0, 9.0)]


def test_one_evaluation_alone_shows_its_best_and_worst(evaluated):
    [sft] = read_evaluations([evaluated("sft", [(f"p{number}", [float(number)]) for number in range(9)])])
    assert [each.prompt for each in choose([sft], baseline=sft, by="gold")] == [
        *("p0", "p1", "p2"),
        *("p8", "p7", "p6"),
        *("p3", "p4", "p5"),
    ]


def test_a_model_that_was_not_asked_has_no_answer(evaluated):
    sft, ppo = read_evaluations([evaluated("sft", [("a", [0.0])]), evaluated("ppo", [("a", [1.0]), ("b", [1.0])])])
    [of_b] = [each for each in choose([sft, ppo], baseline=sft, by="gold") if each.prompt == "b"]
    assert of_b.answers[0] is None
    assert math.isnan(of_b.means[0])


def verdicts_by_length(tmp_path, evaluated, rule: str):
    path = tmp_path / "judge.toml"
    path.write_text(rule)
    rows = [(row["prompt"], [0.0, 0.0]) for row in word_world.rows(split="eval")[:4]]
    made = make_report(read_evaluations([evaluated("sft", rows), evaluated("ppo", rows)]), proxy=None)
    return judged(made, read_judge(path))


def test_a_judge_compares_answers_of_the_same_prompt_and_number(tmp_path, evaluated):
    made = verdicts_by_length(tmp_path, evaluated, 'type = "rule"\nfunction = "word_world"\n')
    assert made.judge == "rule:word_world"
    assert made.compared[0].judged.value == 0.5, "the texts are the same"
    assert made.compared[0].num_unjudged == 0


def test_a_judge_that_fails_gives_no_win_rate(tmp_path, evaluated):
    made = verdicts_by_length(
        tmp_path, evaluated, 'type = "rule"\nfunction = "exact_match"\nargs = {answer_column = "solution"}\n'
    )
    assert made.compared[0].judged is None
    assert made.compared[0].num_unjudged == 8


def test_a_file_that_holds_no_judge_is_refused(tmp_path, evaluated):
    with pytest.raises(ConfigError, match=r"exact_match.*unexpected keyword argument 'answer'"):
        verdicts_by_length(tmp_path, evaluated, 'type = "rule"\nfunction = "exact_match"\nargs = {answer = "x"}\n')
    (tmp_path / "judge.toml").write_text('type = "rule"\n')
    with pytest.raises(ConfigError, match=r"judge\.toml describes no judge:\n  rule\.function: Field required"):
        read_judge(tmp_path / "judge.toml")
