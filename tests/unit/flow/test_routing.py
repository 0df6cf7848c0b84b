"""Dealing prompts to workers: balanced, one message each, never past what a version may be given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.buffer import Buffer
from rlhf_cluster.flow.routing import WorkerView, assign


def _worker(name, *, version=0, num_in_flight=0):
    return WorkerView(worker_id=name, version=version, num_in_flight=num_in_flight)


def _counts(assignments):
    return {assignment.worker_id: assignment.num_prompts for assignment in assignments}


def test_a_step_is_spread_evenly_over_idle_workers():
    workers = [_worker("a"), _worker("b"), _worker("c")]
    assert _counts(assign(workers, num_wanted=8, capacities={0: 8})) == {"a": 3, "b": 3, "c": 2}


def test_busy_workers_get_less():
    workers = [_worker("a", num_in_flight=5), _worker("b"), _worker("c", num_in_flight=3)]
    assert _counts(assign(workers, num_wanted=5, capacities={0: 8})) == {"b": 4, "c": 1}


def test_workers_without_a_version_or_with_one_out_of_bounds_get_nothing():
    workers = [_worker("new", version=-1), _worker("old", version=3), _worker("live", version=4)]
    assert _counts(assign(workers, num_wanted=4, capacities={3: 0, 4: 4})) == {"live": 4}


def test_no_capacity_and_no_workers_give_no_assignments():
    assert assign([], num_wanted=4, capacities={}) == ()
    assert assign([_worker("a")], num_wanted=4, capacities={0: 0}) == ()


def test_older_versions_come_first_in_the_line():
    workers = [_worker("new", version=2), _worker("old", version=1)]
    assignments = assign(workers, num_wanted=6, capacities={1: 2, 2: 6})
    assert [assignment.worker_id for assignment in assignments] == ["old", "new"]
    assert _counts(assignments) == {"old": 2, "new": 4}


@given(
    prompts_per_step=st.integers(1, 6),
    max_staleness=st.integers(0, 3),
    next_step=st.integers(0, 5),
    outstanding=st.integers(0, 10),
    workers=st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 9)), max_size=6),
    num_wanted=st.integers(0, 30),
)
def test_whatever_is_assigned_the_buffer_admits_in_that_order_and_nothing_more_would_fit(
    prompts_per_step, max_staleness, next_step, outstanding, workers, num_wanted
):
    buffer = Buffer(prompts_per_step=prompts_per_step, max_staleness=max_staleness, first_step=next_step)
    outstanding = min(outstanding, buffer.capacity(next_step))
    for request_id in range(outstanding):
        buffer.dispatch(request_id, version=next_step)
    views = [
        _worker(f"w{index}", version=min(version, next_step), num_in_flight=load)
        for index, (version, load) in enumerate(workers)
    ]
    capacities = {view.version: buffer.capacity(view.version) for view in views}
    assignments = assign(views, num_wanted=num_wanted, capacities=capacities)
    dealt = [assignment.version for assignment in assignments for _ in range(assignment.num_prompts)]
    for request_id, version in enumerate(dealt, start=outstanding):
        buffer.dispatch(request_id, version=version)
    left = max((buffer.capacity(view.version) for view in views), default=0)
    assert len(dealt) == num_wanted or left == 0
