"""Rows and microbatches: every predicted token appears exactly once, and attends to nothing it must not see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.data.packing import PADDING, build_microbatch, rows_of
from rlhf_cluster.data.plan import plan_microbatches
from rlhf_cluster.testing import make_group

groups_of_lengths = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=5)


def groups(lengths):
    return [make_group(group, request_id=n, num_prompt_tokens=2 + n) for n, group in enumerate(lengths)]


def test_a_group_becomes_one_row_with_its_prompt_once_and_no_last_tokens():
    [group] = groups([[3, 4]])
    [row] = rows_of([group], share_prompt=True, max_row_tokens=100)
    microbatch = build_microbatch([group], [row])
    a0, a1, _, b0, b1, b2, _ = group.token_ids.tolist()
    assert microbatch.token_ids_BT.tolist() == [[*group.prompt.token_ids.tolist(), a0, a1, b0, b1, b2]]
    assert microbatch.position_ids_BT.tolist() == [[0, 1, 2, 3, 2, 3, 4]]
    assert microbatch.branch_BT.tolist() == [[0, 0, 1, 1, 2, 2, 2]]
    assert microbatch.source_N.tolist() == [1, 2, 3, 1, 4, 5, 6]
    assert microbatch.target_N.tolist() == group.token_ids.tolist()
    assert microbatch.sequence_N.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_a_completion_of_one_token_is_predicted_by_the_prompt_alone():
    [group] = groups([[1]])
    microbatch = build_microbatch([group], rows_of([group], share_prompt=True, max_row_tokens=100))
    assert microbatch.token_ids_BT.shape == (1, 2)
    assert microbatch.source_N.tolist() == [1]


@given(groups_of_lengths, st.booleans(), st.integers(1, 40), st.integers(1, 64), st.integers(1, 3))
def test_every_token_is_predicted_once_whatever_the_plan(lengths, share_prompt, max_row, budget, num_ranks):
    batch = groups(lengths)
    rows = rows_of(batch, share_prompt=share_prompt, max_row_tokens=max_row)
    planned = plan_microbatches(rows, num_ranks=num_ranks, budget_tokens=budget)
    built = [build_microbatch(batch, members) for rank in planned for members in rank]
    origins = np.concatenate([microbatch.origin_N for microbatch in built])
    targets = np.concatenate([microbatch.target_N for microbatch in built])
    tokens = np.concatenate([group.token_ids for group in batch])
    assert sorted(origins.tolist()) == list(range(len(tokens)))
    assert (targets == tokens[origins]).all()


@given(groups_of_lengths)
def test_rows_stay_within_their_bound_unless_one_completion_alone_is_longer(lengths):
    batch = groups(lengths)
    for row in rows_of(batch, share_prompt=True, max_row_tokens=12):
        assert row.num_inputs <= 12 or len(row.completions) == 1


def test_an_empty_share_is_one_padding_token_that_predicts_nothing():
    microbatch = build_microbatch(groups([[2]]), [])
    assert microbatch.branch_BT.tolist() == [[PADDING]]
    assert len(microbatch.target_N) == microbatch.num_sequences == 0


def test_tree_mask_shows_a_token_its_prompt_and_its_own_branch_only():
    torch = pytest.importorskip("torch")
    from rlhf_cluster.models.policy import tree_mask

    branch_BT = torch.tensor([[0, 0, 1, 1, 2, PADDING]])
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert tree_mask(branch_BT)[0, 0].int().tolist() == expected


masked_groups = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=4)


@given(masked_groups, st.booleans(), st.integers(0, 2**32 - 1))
def test_tokens_that_are_not_trained_on_are_inputs_and_no_targets(lengths, share_prompt, seed):
    draw = np.random.default_rng(seed)
    batch = [replace(group, loss_mask=draw.random(group.num_tokens) < 0.6) for group in groups(lengths)]
    rows = rows_of(batch, share_prompt=share_prompt, max_row_tokens=20)
    masked = build_microbatch(batch, rows)
    whole = build_microbatch(groups(lengths), rows)
    for inputs in ("token_ids_BT", "position_ids_BT", "branch_BT", "row_S", "completion_S"):
        assert (getattr(masked, inputs) == getattr(whole, inputs)).all(), inputs
    trained = np.concatenate([group.loss_mask for group in batch])[whole.origin_N]
    for column in ("source_N", "target_N", "sequence_N"):
        assert (getattr(masked, column) == getattr(whole, column)[trained]).all(), column
    assert sorted(masked.origin_N.tolist()) == list(range(sum(group.num_trained_tokens for group in batch)))
    tokens = np.concatenate([group.trained(group.token_ids) for group in batch])
    assert (tokens[masked.origin_N] == masked.target_N).all()


@given(masked_groups, st.booleans())
def test_with_its_last_token_a_completion_is_whole_among_the_inputs(lengths, share_prompt):
    batch = groups(lengths)
    rows = rows_of(batch, share_prompt=share_prompt, max_row_tokens=20, with_last=True)
    microbatch = build_microbatch(batch, rows, with_last=True)
    flat = microbatch.token_ids_BT.reshape(-1)
    lasts = np.concatenate([np.cumsum(group.lengths) - 1 for group in batch])
    starts = np.cumsum([0, *(group.num_tokens for group in batch)])[:-1]
    lasts += np.repeat(starts, [group.num_completions for group in batch])
    tokens = np.concatenate([group.token_ids for group in batch])
    assert (flat[microbatch.last_S] == tokens[lasts[microbatch.completion_S]]).all()
    num_inputs = sum(len(batch[row.group].prompt.token_ids) for row in rows) + len(tokens)
    assert (microbatch.branch_BT != PADDING).sum() == num_inputs
