"""The pool of a role by example: opening, promoting, scaling, draining, replacing, and giving up."""

from __future__ import annotations

import pytest

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.flow.buffer import IllegalTransition
from rlhf_cluster.flow.pool import Close, Drain, Open, PoolState, Promote
from rlhf_cluster.flow.restarts import RestartBudget


def make_pool(*, size: int = 2, spares: int = 0, adopts: bool = False, max_restarts: int = 3) -> PoolState:
    budget = RestartBudget(max_restarts=max_restarts, window_s=100, backoff_s=1, max_backoff_s=10)
    return PoolState(size=size, spares=spares, adopts=adopts, budget=budget)


def act(pool: PoolState, now_s: float = 0.0) -> list[object]:
    """Do what the pool asks for, and bring up whatever was opened; returns the actions."""
    done = []
    while actions := pool.actions(now_s):
        done += actions
        for action in actions:
            match action:
                case Open(number):
                    pool.opened(f"w-{number}")
                    pool.placed(f"w-{number}")
                    pool.started(f"w-{number}")
                case Promote(worker_id):
                    pool.promoted(worker_id)
                case Drain(worker_id):
                    pool.draining(worker_id)
                case Close(worker_id):
                    pool.closed(worker_id)
    return done


def states(pool: PoolState) -> dict[str, str]:
    return {worker_id: member.state for worker_id, member in pool.members.items()}


def test_what_is_missing_is_opened_and_the_first_to_start_serve():
    pool = make_pool(spares=1)
    assert act(pool) == [Open(0), Open(1), Open(2)]
    assert states(pool) == {"w-0": "serving", "w-1": "serving", "w-2": "spare"}


def test_asking_twice_gives_the_same_answer_until_something_happened():
    pool = make_pool()
    assert pool.actions(0.0) == pool.actions(0.0) == (Open(0), Open(1))
    pool.opened("w-0")
    assert pool.actions(0.0) == (Open(1),)


def test_a_pool_that_adopts_serves_only_after_it_did():
    pool = make_pool(size=1, adopts=True)
    act(pool)
    assert states(pool) == {"w-0": "adopting"}
    pool.serving("w-0")
    assert states(pool) == {"w-0": "serving"}


def test_a_spare_takes_the_place_of_a_lost_one_at_once_and_is_itself_replaced():
    pool = make_pool(spares=1)
    act(pool)
    pool.lost("w-0", reason="killed", now_s=5.0)
    assert pool.actions(5.0) == (Promote("w-2"), Open(3))
    act(pool, 5.0)
    assert states(pool) == {"w-1": "serving", "w-2": "serving", "w-3": "spare"}
    assert pool.num_restarts == 1


def test_the_second_replacement_in_a_row_waits_for_its_backoff():
    pool = make_pool()
    act(pool)
    pool.lost("w-0", reason="killed", now_s=5.0)
    assert act(pool, 5.0) == [Open(2)]
    pool.lost("w-2", reason="killed", now_s=6.0)
    assert pool.actions(6.0) == ()
    assert pool.next_due_s(6.0) == 7.0
    assert act(pool, 7.0) == [Open(3)]
    assert pool.next_due_s(7.0) is None


def test_past_the_budget_nothing_is_opened_and_the_last_reason_is_kept():
    pool = make_pool(max_restarts=1)
    act(pool)
    pool.lost("w-0", reason="first", now_s=0.0)
    act(pool)
    pool.lost("w-1", reason="second", now_s=0.0)
    assert (pool.spent, pool.actions(1000.0), pool.next_due_s(0.0)) == ("second", (), None)


def test_growing_opens_more_and_is_not_held_back_by_a_backoff():
    pool = make_pool()
    act(pool)
    for worker_id in ("w-0", "w-1"):
        pool.lost(worker_id, reason="killed", now_s=0.0)
    pool.resize(4)
    assert len(act(pool)) == 3, "two more, and the one whose replacement is immediate"
    assert pool.next_due_s(0.0) == 1.0


def test_shrinking_closes_what_serves_nothing_yet_before_it_drains():
    pool = make_pool(size=3)
    for action in pool.actions(0.0):
        pool.opened(f"w-{action.number}")
    pool.placed("w-0")
    pool.placed("w-1")
    pool.started("w-0")
    pool.resize(1)
    assert pool.actions(0.0) == (Close("w-2"), Close("w-1"))


def test_shrinking_drains_the_youngest_that_serve():
    pool = make_pool(size=3)
    act(pool)
    pool.resize(1)
    assert act(pool) == [Drain("w-1"), Drain("w-2")]
    pool.closed("w-2")
    assert states(pool) == {"w-0": "serving", "w-1": "draining"}


def test_shrinking_keeps_the_spares():
    pool = make_pool(size=2, spares=1)
    act(pool)
    pool.resize(1)
    assert act(pool) == [Drain("w-1")]
    assert states(pool) == {"w-0": "serving", "w-1": "draining", "w-2": "spare"}


def test_draining_one_lowers_the_size_so_that_nothing_takes_its_place():
    pool = make_pool()
    act(pool)
    pool.drain("w-0")
    assert (pool.size, pool.actions(0.0), states(pool)["w-0"]) == (1, (), "draining")


def test_draining_one_that_does_no_work_yet_just_closes_it():
    pool = make_pool()
    for action in pool.actions(0.0):
        pool.opened(f"w-{action.number}")
    pool.drain("w-1")
    assert act(pool) == [Close("w-1")]
    assert pool.size == 1


def test_draining_a_spare_leaves_the_size_and_the_spare_is_replaced():
    pool = make_pool(spares=1)
    act(pool)
    pool.drain("w-2")
    assert act(pool) == [Close("w-2"), Open(3)]
    assert pool.size == 2


def test_restarting_one_leaves_the_size_and_another_takes_its_place_at_once():
    pool = make_pool(max_restarts=0)
    act(pool)
    pool.restart("w-0")
    assert act(pool) == [Open(2)]
    assert (pool.size, pool.num_restarts) == (2, 0)
    assert states(pool) == {"w-0": "draining", "w-1": "serving", "w-2": "serving"}


def test_the_only_one_can_be_restarted_and_one_that_does_no_work_yet_is_just_opened_anew():
    pool = make_pool(size=1)
    [first] = pool.actions(0.0)
    pool.opened(f"w-{first.number}")
    pool.restart("w-0")
    assert act(pool) == [Close("w-0"), Open(1)]
    pool.restart("w-1")
    assert act(pool) == [Open(2)]


def test_losing_one_that_was_leaving_spends_nothing():
    pool = make_pool(max_restarts=0)
    act(pool)
    pool.drain("w-0")
    pool.lost("w-0", reason="killed", now_s=0.0)
    assert (pool.spent, pool.num_restarts, pool.actions(0.0)) == (None, 0, ())


def test_the_last_one_stays():
    pool = make_pool(size=1)
    act(pool)
    with pytest.raises(ConfigError, match="cannot have 0 replicas"):
        pool.drain("w-0")
    with pytest.raises(ConfigError):
        pool.resize(0)
    assert states(pool) == {"w-0": "serving"}


def test_events_in_an_impossible_order_are_refused():
    pool = make_pool()
    pool.opened("w-0")
    with pytest.raises(IllegalTransition, match="used already"):
        pool.opened("w-0")
    with pytest.raises(IllegalTransition, match="w-0 is pending, and this event is only for one that is starting"):
        pool.started("w-0")
    with pytest.raises(IllegalTransition, match="w-7 is unknown"):
        pool.lost("w-7", reason="", now_s=0.0)
