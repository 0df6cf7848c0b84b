"""Cutting a group: every column is cut with it, and what is invalid never stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.records import Invalid, RolloutGroup
from rlhf_cluster.testing import make_group

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=6)


def full_group(lengths: list[int]) -> RolloutGroup:
    group = make_group(lengths)
    return replace(
        group,
        texts=tuple(f"text {number}" for number in range(len(lengths))),
        finish_reasons=tuple(f"reason {number}" for number in range(len(lengths))),
        breakdown={"one": np.arange(len(lengths), dtype=np.float32)},
        versions=np.arange(group.num_tokens, dtype=np.int32),
    )


def failure(completion: int, source: str = "reward:one") -> Invalid:
    return Invalid(completion=completion, source=source, kind="raised", message="no")


@given(LENGTHS, st.data())
def test_selecting_cuts_every_column_to_the_chosen_completions(lengths, data):
    group = full_group(lengths)
    keep_G = np.array(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))), dtype=bool)
    cut = group.select(keep_G)
    kept = np.flatnonzero(keep_G)
    assert cut.lengths.tolist() == [lengths[number] for number in kept]
    assert cut.texts == tuple(group.texts[number] for number in kept)
    assert cut.finish_reasons == tuple(group.finish_reasons[number] for number in kept)
    assert np.array_equal(cut.rewards, group.rewards[keep_G])
    assert np.array_equal(cut.breakdown["one"], group.breakdown["one"][keep_G])
    for column in ("token_ids", "logprobs", "versions", "reference_logprobs", "advantages"):
        before = np.split(getattr(group, column), np.cumsum(group.lengths)[:-1])
        expected = np.concatenate([np.empty(0), *(before[number] for number in kept)])
        assert np.array_equal(getattr(cut, column), expected), column


@given(LENGTHS)
def test_selecting_everything_changes_nothing(lengths):
    group = full_group(lengths)
    same = group.select(np.ones(len(lengths), dtype=bool))
    assert np.array_equal(same.token_ids, group.token_ids)
    assert np.array_equal(same.rewards, group.rewards)


@given(LENGTHS, st.data())
def test_only_completions_without_a_failure_stay_however_often_one_failed(lengths, data):
    bad = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=8))
    group = replace(full_group(lengths), invalid=tuple(failure(number) for number in bad))
    valid = group.valid_only()
    assert valid.texts == tuple(f"text {number}" for number in range(len(lengths)) if number not in bad)
    assert valid.num_tokens == sum(length for number, length in enumerate(lengths) if number not in bad)
    assert valid.invalid == ()


def test_a_group_without_failures_is_returned_as_it_is():
    group = full_group([2, 3])
    assert group.valid_only() is group


def test_columns_that_are_not_filled_yet_stay_empty():
    group = replace(full_group([2, 3]), rewards=None, reference_logprobs=None, advantages=None, texts=(), breakdown={})
    cut = group.select(np.array([True, False]))
    assert (cut.rewards, cut.reference_logprobs, cut.advantages, cut.texts) == (None, None, None, ())


@given(LENGTHS)
def test_completions_and_per_token_values_follow_the_lengths(lengths):
    group = full_group(lengths)
    assert [len(tokens) for tokens in group.completions()] == lengths
    assert group.per_token(np.arange(len(lengths))).tolist() == [
        n for n, length in enumerate(lengths) for _ in range(length)
    ]


@pytest.mark.parametrize(("versions", "oldest"), [([4, 3, 5], 3), ([7, 7, 7], 7)])
def test_a_group_is_as_old_as_its_oldest_token(versions, oldest):
    assert replace(full_group([1, 2]), versions=np.array(versions, np.int32)).oldest_version == oldest


def test_an_empty_group_has_no_age():
    assert full_group([2]).select(np.array([False])).oldest_version == -1
