"""The restart budget: the first replacement is free, the next ones wait, and too many in a window are refused."""

from __future__ import annotations

import pytest

from rlhf_cluster.flow.restarts import RestartBudget


def budget(**changed) -> RestartBudget:
    return RestartBudget(**{"max_restarts": 5, "window_s": 100.0, "backoff_s": 1.0, "max_backoff_s": 3.0} | changed)


def test_the_first_is_immediate_and_the_next_wait_twice_as_long_each_up_to_a_bound():
    spending = budget()
    assert [spending.spend(float(second)) for second in range(5)] == [0.0, 1.0, 2.0, 3.0, 3.0]


def test_past_the_budget_there_is_none_until_the_window_has_moved_on():
    spending = budget(max_restarts=2)
    assert [spending.spend(0.0), spending.spend(50.0), spending.spend(99.0)] == [0.0, 1.0, None]
    assert spending.spend(100.0) == 1.0, "the first left the window, the second is still in it"
    assert spending.spend(1000.0) == 0.0


def test_a_budget_of_none_refuses_the_first():
    assert budget(max_restarts=0).spend(0.0) is None


def test_jitter_lengthens_a_wait_by_up_to_a_half():
    spending = budget()
    spending.spend(0.0)
    assert spending.spend(0.0, jitter=1.0) == 1.5


def test_a_large_budget_never_overflows():
    spending = budget(max_restarts=5000)
    assert max(spending.spend(0.0) for _ in range(5000)) == 3.0


def test_bounds_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"max_restarts = -1 must be at least 0"):
        budget(max_restarts=-1)
    with pytest.raises(ValueError, match=r"backoff_s = 4.0 between 0 and max_backoff_s = 3.0"):
        budget(backoff_s=4.0)
