"""What the driver refuses as an answer that cannot be true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.group_checks import problem_of, score_problem
from rlhf_cluster.records import Invalid, Prompt, RolloutGroup, RolloutRequest, Sampling
from rlhf_cluster.testing.groups import make_group

LENGTHS = [3, 1, 4]


def generated(**changes) -> RolloutGroup:
    group = replace(
        make_group(LENGTHS, request_id=7, version=2), rewards=None, reference_logprobs=None, advantages=None
    )
    return replace(group, **changes)


def asked(group: RolloutGroup, *, begun: RolloutGroup | None = None) -> RolloutRequest:
    return RolloutRequest(
        request_id=7,
        prompt=group.prompt,
        num_completions=3,
        sampling=Sampling(max_new_tokens=4),
        seed=0,
        begun=begun,
    )


def column(index: int, value: float, *, of: str) -> dict[str, np.ndarray]:
    values = getattr(generated(), of).copy()
    values[index] = value
    return {of: values}


def problem(**changes) -> str | None:
    return problem_of(asked(generated()), generated(**changes), newest_version=2)


def test_a_group_as_it_was_asked_for_has_no_problem():
    assert problem() is None
    assert problem(versions=np.array([0, 1, 2, 0, 1, 1, 2, 2], np.int32)) is None
    copied = replace(generated().prompt, token_ids=generated().prompt.token_ids.copy())
    assert problem(prompt=copied) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"request_id": 8}, "request 7 was answered with a group of request 8"),
        ({"prompt": Prompt(prompt_id="9/0", text="", token_ids=np.ones(1, np.int32))}, "has the prompt 9/0, not"),
        ({"prompt": replace(generated().prompt, token_ids=np.ones(5, np.int32))}, "token for token"),
        ({"lengths": np.array([4, 4], np.int32)}, "has 2 completions and 3 finish reasons; 3 completions were asked"),
        ({"finish_reasons": ("stop", "abort", "stop")}, "unknown finish reason 'abort'"),
        ({"lengths": np.array([3, 1, 3], np.int32)}, r"lengths that sum to 7, and token ids of shape \(8,\)"),
        ({"logprobs": np.zeros(9, np.float32)}, r"sum to 8, and log-probs of shape \(9,\)"),
        ({"versions": np.zeros((8, 1), np.int32)}, r"versions of shape \(8, 1\)"),
        ({"lengths": np.array([0, 4, 4], np.int32)}, "0 tokens in completion 0, length; at least 1, at most 4"),
        ({"lengths": np.array([-1, 4, 5], np.int32)}, "-1 tokens in completion 0"),
        ({"lengths": np.array([2, 1, 5], np.int32)}, "5 tokens in completion 2, length; at least 1, at most 4"),
        (column(5, -1, of="token_ids"), "token id -1; ids are 0 or more"),
        (column(5, np.nan, of="logprobs"), "1 log-probabilities that cannot be, such as nan"),
        (column(5, -np.inf, of="logprobs"), "such as -inf"),
        (column(5, 0.01, of="logprobs"), "such as 0.01; they are finite and at most 0"),
        (column(5, 3, of="versions"), "weight versions 2 to 3; 0 to 2 were published"),
        (column(5, -1, of="versions"), "weight versions -1 to 2"),
        (column(1, 1, of="versions"), "goes back from weight version 2 to 1 within a completion, at token 1"),
    ],
)
def test_an_answer_that_cannot_be_true_is_told_in_a_sentence(changes, words):
    found = problem(**changes)
    assert found is not None
    assert found.startswith(("the group of request 7 has", "the group of request 7 goes", "request 7"))
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(found)


def test_a_certain_token_may_lie_a_hair_above_zero():
    assert problem(**column(5, 1e-7, of="logprobs")) is None


def test_a_completion_may_be_empty_only_when_it_is_unfinished():
    group = generated(lengths=np.array([4, 0, 4], np.int32), finish_reasons=("stop", "unfinished", "length"))
    assert problem_of(asked(group), group, newest_version=2) is None
    nothing = np.zeros(0, np.int32)
    empty = replace(
        group,
        lengths=np.zeros(3, np.int32),
        token_ids=nothing,
        logprobs=nothing.astype(np.float32),
        versions=nothing,
        finish_reasons=("unfinished",) * 3,
    )
    assert problem_of(asked(empty), empty, newest_version=2) is None


BEGUN = replace(
    generated(),
    lengths=np.array([2, 1, 0], np.int32),
    token_ids=generated().token_ids[[0, 1, 3]],
    logprobs=generated().logprobs[[0, 1, 3]],
    versions=generated().versions[[0, 1, 3]],
    finish_reasons=("unfinished", "stop", "unfinished"),
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        (column(1, 63, of="token_ids"), "does not keep the 2 tokens that another worker had begun completion 0 with"),
        (column(3, 63, of="token_ids"), "does not keep the 1 tokens"),
        (column(0, 1, of="versions"), "other weight versions that they made the begun tokens of completion 0"),
        ({"lengths": np.array([1, 3, 4], np.int32)}, "does not keep the 2 tokens"),
        ({"lengths": np.array([3, 2, 3], np.int32)}, "goes on with completion 1, which another worker had finished"),
    ],
)
def test_begun_tokens_are_kept(changes, words):
    group = generated(**changes)
    found = problem_of(asked(generated(), begun=BEGUN), group, newest_version=2)
    assert (found is None) == (words is None)
    assert words is None or words in str(found)


@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any),
    data=st.data(),
)
def test_versions_go_back_exactly_when_some_completion_says_so(lengths, data):
    group = replace(make_group(lengths), finish_reasons=("unfinished",) * len(lengths))
    versions = data.draw(st.lists(st.integers(0, 2), min_size=sum(lengths), max_size=sum(lengths)))
    group = replace(group, versions=np.array(versions, np.int32))
    request = replace(asked(group), request_id=0, num_completions=len(lengths))
    parts = [part.tolist() for part in np.split(group.versions, np.cumsum(lengths)[:-1])]
    found = problem_of(request, group, newest_version=2)
    assert (found is not None) == any(part != sorted(part) for part in parts)


def scored(**changes) -> RolloutGroup:
    rewards = np.array([1, 0, 0.5], np.float32)
    return generated(**{"rewards": rewards, "breakdown": {"vader": rewards}, **changes})


FAILED = Invalid(completion=1, source="reward:vader", kind="raised", message="why")
MISSING = np.array([1, np.nan, 0.5], np.float32)


def test_rewards_and_reference_log_probabilities_that_came_back_whole_are_fine():
    assert score_problem([generated()], [scored()]) is None
    assert score_problem([generated()], [scored(rewards=MISSING, invalid=(FAILED,))]) is None
    referred = scored(reference_logprobs=-np.ones(8, np.float32))
    assert score_problem([scored()], [referred]) is None
    assert score_problem([generated()], [generated(reference_logprobs=-np.ones(8, np.float32))]) is None
    large = np.full(3, 3e38, np.float32)
    assert score_problem([generated()], [scored(rewards=large)]) is None
    assert score_problem([], []) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([], "1 groups were sent and 0 came back"),
        ([scored(request_id=8)], "request 8 came back in the place of request 7"),
        ([scored(lengths=np.array([4, 4], np.int32))], "other completions than were sent"),
        ([scored(**column(0, 63, of="token_ids"))], "other completions than were sent"),
        ([generated()], "neither rewards nor reference log-probabilities filled"),
        ([scored(rewards=np.zeros(2, np.float32))], "3 completions and rewards of shape (2,)"),
        ([scored(breakdown={"vader": np.zeros(2, np.float32)})], "3 completions and vader of shape (2,)"),
        ([scored(rewards=MISSING)], "reward nan for completion 1, which is not marked as failed"),
        (
            [scored(rewards=np.array([-np.inf, np.nan, 0], np.float32), invalid=(FAILED,))],
            "reward -inf for completion 0",
        ),
        ([scored(invalid=(replace(FAILED, completion=3),))], "marks completion 3 as failed and has 3"),
        ([generated(reference_logprobs=np.zeros(7, np.float32))], "reference log-probabilities of shape (7,)"),
        ([generated(reference_logprobs=np.full(8, np.nan, np.float32))], "8 reference log-probabilities that cannot"),
    ],
)
def test_columns_that_cannot_be_true_are_told(answer, words):
    assert words in str(score_problem([generated()], answer))
