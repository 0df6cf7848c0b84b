"""Plans of microbatches: nothing lost, budgets kept, ranks level, and the plan of a head begins the batch's plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.data.packing import Row, rows_of
from rlhf_cluster.data.plan import plan_microbatches
from rlhf_cluster.testing import make_group

groups_of_lengths = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=12)
layouts = st.fixed_dictionaries({"share_prompt": st.booleans(), "max_row_tokens": st.integers(1, 60)})
shapes = st.fixed_dictionaries({"num_ranks": st.integers(1, 4), "budget_tokens": st.integers(1, 90)})


def rows(lengths, **layout) -> list[Row]:
    groups = [make_group(group, request_id=n, num_prompt_tokens=2 + n) for n, group in enumerate(lengths)]
    return rows_of(groups, **{"share_prompt": True, "max_row_tokens": 20, **layout})


def ids(planned) -> list[list[list[tuple[int, int]]]]:
    return [[[(row.group, int(row.completions[0])) for row in rows] for rows in share] for share in planned]


@given(groups_of_lengths, layouts, shapes)
def test_every_row_is_in_the_plan_once(lengths, layout, shape):
    batch = rows(lengths, **layout)
    planned = [row for share in plan_microbatches(batch, **shape) for members in share for row in members]
    assert sorted(map(id, planned)) == sorted(map(id, batch))


@given(groups_of_lengths, layouts, shapes)
def test_ranks_get_equally_many_microbatches_within_the_budget(lengths, layout, shape):
    planned = plan_microbatches(rows(lengths, **layout), **shape)
    assert len({len(share) for share in planned}) == 1
    for members in (members for share in planned for members in share if members):
        width = max(row.num_inputs for row in members)
        assert len(members) * width <= max(shape["budget_tokens"], width)


@given(groups_of_lengths, layouts, shapes, st.data())
def test_the_plan_of_a_head_is_the_beginning_of_the_plan_of_the_batch(lengths, layout, shape, data):
    at = data.draw(st.integers(0, len(lengths)))
    before = ids(plan_microbatches(rows(lengths[:at], **layout), **shape, is_whole=False))
    longer = data.draw(st.integers(at, len(lengths)))
    between = ids(plan_microbatches(rows(lengths[:longer], **layout), **shape, is_whole=False))
    whole = ids(plan_microbatches(rows(lengths, **layout), **shape))
    for begun, further, share in zip(before, between, whole, strict=True):
        assert begun == further[: len(begun)] == share[: len(begun)]
        # The last one of all is never done early: the ranks exchange their gradients in it.
        assert not share or len(further) < len(share)


def test_full_microbatches_of_a_head_are_ready_before_the_batch_is():
    head = plan_microbatches(rows([[9, 9]] * 5), num_ranks=1, budget_tokens=40, is_whole=False)
    assert sum(len(members) for members in head[0]) >= 3


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_ranks_are_level_and_padding_is_small_on_lengths_as_they_are_met(num_ranks):
    lengths = np.random.default_rng(0).lognormal(np.log(60), 0.8, (64, 8)).astype(int).clip(1, 256)
    planned = plan_microbatches(rows(lengths.tolist(), max_row_tokens=512), num_ranks=num_ranks, budget_tokens=2048)
    loads = [sum(row.num_inputs for members in share for row in members) for share in planned]
    padded = sum(len(m) * max(row.num_inputs for row in m) for share in planned for m in share if m)
    assert max(loads) < 1.04 * np.mean(loads)
    assert padded < 1.1 * sum(loads)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_the_rows_of_a_small_batch_are_not_widened_by_its_longest(num_ranks):
    lengths = np.random.default_rng(0).lognormal(np.log(60), 0.8, (16, 1)).astype(int).clip(1, 256)
    planned = plan_microbatches(rows(lengths.tolist()), num_ranks=num_ranks, budget_tokens=1024)
    useful = sum(row.num_inputs for share in planned for members in share for row in members)
    padded = sum(len(m) * max(row.num_inputs for row in m) for share in planned for m in share if m)
    assert padded < 1.25 * useful


def test_rows_of_about_one_length_share_a_microbatch_as_far_as_the_budget_goes():
    planned = plan_microbatches(rows([[20], [19], [18], [20]]), num_ranks=1, budget_tokens=2048)
    assert [len(members) for members in planned[0]] == [4]
