"""When a quiet worker is asked, hedged and replaced."""

from __future__ import annotations

import pytest

from rlhf_cluster.flow.stalls import Hedge, Hung, ProgressWatch


class Watched:
    """A watch and the driver's rounds around it: once a second, workers asked answer as `tokens` says."""

    def __init__(self, *workers: str, hedge_s: float = 8, stall_s: float = 40, unresponsive_s: float = 20) -> None:
        self.watch = ProgressWatch(hedge_s=hedge_s, stall_s=stall_s, unresponsive_s=unresponsive_s)
        self.tokens: dict[str, int | None] = dict.fromkeys(workers, 0)
        self.now_s = 0.0
        self.found: list[tuple[float, Hedge | Hung]] = []
        self.asked: list[tuple[float, str]] = []
        for worker in workers:
            self.watch.sent(worker, 0.0)

    def rounds(self, until_s: float, *, making_tokens: tuple[str, ...] = ()) -> list[tuple[float, str, type]]:
        while self.now_s < until_s:
            self.now_s += 1
            for worker in making_tokens:
                self.tokens[worker] += 10
            for worker in self.watch.ask(self.now_s):
                self.asked.append((self.now_s, worker))
                if (tokens := self.tokens[worker]) is None:
                    self.watch.silent(worker, self.now_s)
                else:
                    self.watch.status(worker, tokens, self.now_s)
            self.found += [(self.now_s, verdict) for verdict in self.watch.verdicts(self.now_s)]
        return [(at_s, verdict.worker_id, type(verdict)) for at_s, verdict in self.found]


def test_a_worker_that_answers_and_makes_no_token_is_hedged_once_and_then_hung():
    fleet = Watched("a", "b")
    assert fleet.rounds(60, making_tokens=("b",)) == [(8, "a", Hedge), (40, "a", Hung)]
    assert fleet.found[1][1].sentence == "a has work and made no token for 40.0 s (bound 40.0 s)"


def test_a_worker_that_does_not_tell_its_status_is_hung_earlier():
    fleet = Watched("a")
    fleet.tokens["a"] = None
    assert fleet.rounds(30) == [(8, "a", Hedge), (20, "a", Hung)]
    assert "has not told its status for 20.0 s" in fleet.found[1][1].sentence


def test_progress_ends_a_stall_and_the_next_one_is_hedged_anew():
    fleet = Watched("a")
    fleet.rounds(12)
    fleet.tokens["a"] = 5
    fleet.rounds(16)
    assert [kind for _, _, kind in fleet.rounds(200)] == [Hedge, Hedge, Hung]


def test_a_group_that_arrives_is_progress_and_spares_the_question():
    fleet = Watched("a")
    for second in range(1, 30):
        fleet.watch.heard("a", second)
        fleet.now_s = second - 1.0
        fleet.rounds(second)
    assert fleet.asked == []
    assert fleet.found == []


def test_a_worker_without_work_is_neither_asked_nor_judged():
    fleet = Watched("a", "b")
    fleet.rounds(3)
    fleet.watch.idle("a")
    fleet.watch.forget("b")
    fleet.asked.clear()
    assert fleet.rounds(100) == []
    assert fleet.asked == []
    fleet.watch.status("b", 3, 100)
    fleet.watch.sent("a", 100)
    assert fleet.rounds(109) == [(108, "a", Hedge)]


def test_more_work_does_not_set_the_clock_of_a_stalled_worker_back():
    fleet = Watched("a")
    fleet.rounds(6)
    fleet.watch.sent("a", 6)
    assert fleet.rounds(9) == [(8, "a", Hedge)]


def test_the_clock_stands_while_a_worker_adopts_weights():
    fleet = Watched("a")
    fleet.rounds(5)
    fleet.watch.paused("a", 5)
    assert fleet.rounds(60) == []
    fleet.watch.resumed("a", 60)
    assert fleet.rounds(70) == [(63, "a", Hedge)]


def test_work_sent_during_an_adoption_is_not_older_than_it_is():
    watch = ProgressWatch(hedge_s=8, stall_s=40, unresponsive_s=20)
    watch.paused("a", 0)
    watch.sent("a", 3)
    watch.resumed("a", 4)
    fleet = Watched()
    fleet.watch, fleet.tokens, fleet.now_s = watch, {"a": 0}, 4
    assert fleet.rounds(14) == [(12, "a", Hedge)]


def test_a_watch_that_stood_still_condemns_nobody():
    fleet = Watched("a", "b")
    fleet.rounds(3, making_tokens=("a", "b"))
    fleet.now_s = 10_000
    assert fleet.rounds(10_010, making_tokens=("a", "b")) == []


def test_nobody_is_judged_who_was_not_asked():
    watch = ProgressWatch(hedge_s=1, stall_s=1, unresponsive_s=1)
    watch.sent("a", 0)
    for second in range(20):
        assert watch.verdicts(second) == ()


def test_bounds_grow_with_the_gaps_that_are_usual_here():
    fleet = Watched("a", hedge_s=8)
    for number in range(1, 6):
        fleet.rounds(number * 10 - 1)
        fleet.tokens["a"] = number
        fleet.rounds(number * 10)
    assert 3 * 8 <= fleet.watch.hedge_after_s <= 3 * 9 * 1.25
    assert 10 * 8 <= fleet.watch.stall_after_s <= 10 * 9 * 1.25
    assert [kind for _, _, kind in fleet.rounds(50)] == [Hedge]


def test_steady_workers_leave_the_bounds_at_their_floors():
    fleet = Watched("a", "b")
    fleet.rounds(200, making_tokens=("a", "b"))
    assert (fleet.watch.hedge_after_s, fleet.watch.stall_after_s) == (8, 40)


def test_only_quiet_workers_are_asked():
    fleet = Watched(*(f"w{number}" for number in range(100)))
    for second in range(1, 10):
        for number in range(99):
            fleet.watch.heard(f"w{number}", second)
        fleet.rounds(second)
    assert {worker for _, worker in fleet.asked} == {"w99"}


def test_a_stall_bound_below_the_hedge_bound_replaces_without_a_hedge():
    assert Watched("a", hedge_s=8, stall_s=5).rounds(10) == [(5, "a", Hung)]


@pytest.mark.parametrize("bounds", [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_bounds_that_could_not_be_kept_are_refused(bounds):
    hedge_s, stall_s, unresponsive_s = bounds
    with pytest.raises(ValueError, match="must be above 0"):
        ProgressWatch(hedge_s=hedge_s, stall_s=stall_s, unresponsive_s=unresponsive_s)
