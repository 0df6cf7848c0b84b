"""Dealing prompts to workers: balanced, one message each, never past what a version may be given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.buffer import Buffer
from rlhf_cluster.flow.routing import Roster


def _roster(*workers, max_in_flight=100):
    """Each worker is (name, version, prompts in flight)."""
    roster = Roster(max_in_flight=max_in_flight)
    for name, version, load in workers:
        roster.serve(name, version=version)
        roster.load(name, load)
    return roster


def _counts(assignments):
    return {assignment.worker_id: assignment.num_prompts for assignment in assignments}


def test_a_step_is_spread_evenly_over_idle_workers():
    roster = _roster(("a", 0, 0), ("b", 0, 0), ("c", 0, 0))
    assert _counts(roster.assign(capacity={0: 8}.get)) == {"a": 3, "b": 3, "c": 2}


def test_busy_workers_get_less_and_full_ones_nothing():
    roster = _roster(("a", 0, 5), ("b", 0, 0), ("c", 0, 3), max_in_flight=5)
    assert _counts(roster.assign(capacity={0: 8}.get, num_wanted=5)) == {"b": 4, "c": 1}


def test_workers_without_a_version_or_with_one_out_of_bounds_get_nothing():
    roster = _roster(("new", -1, 0), ("old", 3, 0), ("live", 4, 0))
    assert _counts(roster.assign(capacity={3: 0, 4: 4}.get)) == {"live": 4}


def test_no_capacity_and_no_workers_give_no_assignments():
    assert _roster().assign(capacity={}.get) == ()
    assert _roster(("a", 0, 0)).assign(capacity={0: 0}.get) == ()


def test_older_versions_come_first_in_the_line():
    roster = _roster(("new", 2, 0), ("old", 1, 0))
    assignments = roster.assign(capacity={1: 2, 2: 6}.get)
    assert [assignment.worker_id for assignment in assignments] == ["old", "new"]
    assert _counts(assignments) == {"old": 2, "new": 4}


def test_a_worker_that_left_or_is_reserved_gets_nothing_until_it_is_free_again():
    roster = _roster(("a", 0, 0), ("b", 0, 0), ("c", 0, 0))
    roster.leave("a")
    roster.reserve("b", reserved=True)
    assert _counts(roster.assign(capacity={0: 2}.get)) == {"c": 2}
    roster.reserve("b", reserved=False)
    assert _counts(roster.assign(capacity={0: 2}.get)) == {"b": 1, "c": 1}


def test_a_prompt_goes_out_again_to_a_version_no_older_than_its_first_and_elsewhere():
    roster = _roster(("old", 1, 0), ("dead", 2, 0), ("busy", 2, 3), ("idle", 3, 1))
    assert roster.place(least_version=2, avoid={"dead"}) == "idle"
    assert roster.place(least_version=3, avoid={"idle"}) is None
    assert roster.place(least_version=4, avoid=set()) is None


def test_a_full_worker_is_only_kept_free_for_a_prompt_that_must_be_alone():
    roster = _roster(("full", 0, 3), max_in_flight=3)
    assert roster.place(least_version=0, avoid=set()) is None
    assert roster.place(least_version=0, avoid=set(), full_too=True) == "full"


def test_a_roster_does_not_grow_with_the_number_of_prompts():
    roster = _roster(("a", 0, 0), ("b", 0, 0), max_in_flight=1)
    for _ in range(5000):
        for assignment in roster.assign(capacity={0: 1}.get):
            roster.load(assignment.worker_id, 1)
            roster.load(assignment.worker_id, -1)
    assert sum(len(heap) for heap in roster._heaps.values()) < 200


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
    roster = _roster(*((f"w{i}", min(version, next_step), load) for i, (version, load) in enumerate(workers)))
    assignments = roster.assign(capacity=buffer.capacity, num_wanted=num_wanted)
    dealt = [assignment.version for assignment in assignments for _ in range(assignment.num_prompts)]
    for request_id, version in enumerate(dealt, start=outstanding):
        buffer.dispatch(request_id, version=version)
    left = max((buffer.capacity(version) for version in roster.versions.values()), default=0)
    assert len(dealt) == num_wanted or left == 0
