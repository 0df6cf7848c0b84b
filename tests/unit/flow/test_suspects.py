"""What a worker's death says about the prompts on it; `tests/properties/test_suspect_laws.py` has the laws."""

from __future__ import annotations

import pytest

from rlhf_cluster.flow.suspects import Suspects, Verdict


def test_one_death_is_a_strike_and_no_verdict():
    suspects = Suspects()
    assert suspects.worker_lost([1, 2], "rollout-0: killed") == Verdict()
    assert [suspects.num_strikes(request_id) for request_id in (1, 2, 3)] == [1, 1, 0]


def test_a_request_that_was_there_at_two_deaths_runs_alone_before_it_is_judged():
    suspects = Suspects()
    suspects.worker_lost([1, 2], "rollout-0: killed by signal 11")
    assert suspects.worker_lost([2, 3], "rollout-1: killed by signal 11") == Verdict(isolated=(2,))
    verdict = suspects.worker_lost([2], "rollout-2: killed by signal 11")
    evidence = tuple(f"rollout-{number}: killed by signal 11" for number in range(3))
    assert verdict == Verdict(quarantined=((2, evidence),))


def test_several_with_as_many_strikes_are_isolated_and_the_one_that_dies_alone_is_quarantined():
    suspects = Suspects()
    suspects.worker_lost([1, 2], "a")
    assert suspects.worker_lost([1, 2, 3], "b") == Verdict(isolated=(1, 2))
    assert [suspects.is_isolated(request_id) for request_id in (1, 2, 3)] == [True, True, False]
    assert suspects.worker_lost([2], "c") == Verdict(quarantined=((2, ("a", "b", "c")),))
    suspects.finished(1)
    assert not suspects.is_isolated(1)
    assert not suspects.is_isolated(2)


def test_a_request_that_finishes_is_cleared():
    suspects = Suspects()
    suspects.worker_lost([1], "a")
    suspects.finished(1)
    assert suspects.worker_lost([1], "b") == Verdict()


def test_isolation_is_told_once():
    suspects = Suspects(max_deaths=1)
    assert suspects.worker_lost([1, 2], "a").isolated == (1, 2)
    assert suspects.worker_lost([1, 2, 3], "b").isolated == (3,)


def test_a_second_copy_of_a_quarantined_request_explains_the_next_death():
    suspects = Suspects(max_deaths=1)
    suspects.worker_lost([7], "a")
    suspects.worker_lost([7], "b")
    assert suspects.worker_lost([7, 8], "c") == Verdict()
    assert suspects.num_strikes(8) == 0


def test_a_bound_below_one_is_refused():
    with pytest.raises(ValueError, match="max_deaths = 0 must be at least 1"):
        Suspects(max_deaths=0)
