"""Requests that go out again: the oldest first, to whom they may go, and one suspect at a time alone on its worker."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rlhf_cluster.driver.resending import Resending
from rlhf_cluster.errors import BadAnswer, RoleDied, RoleHung
from rlhf_cluster.flow.routing import Roster

DIED = RoleDied("rollout-9 died", role="rollout worker", worker_id="rollout-9", activity="generating")


class Workers:
    """What `Resending` asks of a fleet: the real roster, and what each worker holds."""

    def __init__(self, *names: str, max_in_flight: int = 4) -> None:
        self.roster = Roster(max_in_flight=max_in_flight)
        self.held: Counter[str] = Counter()
        for name in names:
            self.roster.serve(name, version=0)

    def num_held(self, worker_id: str) -> int:
        return self.held[worker_id]

    def load(self, worker_id: str, change: int) -> None:
        self.roster.load(worker_id, change)
        self.held[worker_id] += change


def resending(fleet: Any, *, max_deaths: int = 1) -> Resending:
    return Resending(fleet, max_deaths=max_deaths)


def placed(again: Resending, fleet: Workers, *, least: int = 0) -> list[tuple[str, int]]:
    """Those that were sent now."""
    sent = []
    for worker_id, request_id in again.placements(lambda request_id: least):
        fleet.load(worker_id, 1)
        sent.append((worker_id, request_id))
    return sent


def isolated(again: Resending, *request_ids: int) -> None:
    assert again.returned(request_ids, DIED).isolated == request_ids
    for request_id in request_ids:
        again.add(request_id)


def test_the_oldest_go_first_and_each_to_the_least_loaded():
    fleet = Workers("a", "b")
    again = resending(fleet)
    for request_id in (5, 2, 9):
        again.add(request_id)
    assert placed(again, fleet) == [("a", 2), ("b", 5), ("a", 9)]
    assert placed(again, fleet) == []


def test_a_request_told_twice_goes_out_once():
    fleet = Workers("a")
    again = resending(fleet)
    again.add(1)
    again.add(1)
    assert placed(again, fleet) == [("a", 1)]


def test_a_hedged_request_avoids_every_worker_that_has_it():
    fleet = Workers("a", "b")
    again = resending(fleet)
    again.add(1, avoid="a")
    again.add(1, avoid="b")
    assert placed(again, fleet) == []
    fleet.roster.serve("c", version=0)
    assert placed(again, fleet) == [("c", 1)]


def test_a_request_waits_for_room_and_for_a_worker_of_its_version_or_later():
    fleet = Workers("a", max_in_flight=1)
    again = resending(fleet)
    fleet.load("a", 1)
    again.add(1)
    assert placed(again, fleet) == []
    fleet.load("a", -1)
    assert placed(again, fleet, least=1) == []
    fleet.roster.serve("a", version=2)
    assert placed(again, fleet, least=1) == [("a", 1)]


def test_a_request_that_nobody_needs_any_more_is_forgotten():
    fleet = Workers("a")
    again = resending(fleet)
    again.add(1)
    assert list(again.placements(lambda request_id: None)) == []
    assert placed(again, fleet) == []


def test_only_losses_that_a_prompt_may_be_to_blame_for_count_against_it():
    again = resending(Workers("a"))
    where = {"role": "rollout worker", "worker_id": "rollout-9", "activity": "generating"}
    assert again.returned([1], None).isolated == ()
    assert again.returned([1], BadAnswer("nonsense", **where)).isolated == ()
    assert again.returned([1], RoleHung("hangs", **where)).isolated == (1,)


def test_a_suspect_waits_until_its_worker_holds_nothing_else_and_that_worker_gets_nothing_new():
    fleet = Workers("a")
    again = resending(fleet)
    fleet.load("a", 2)
    isolated(again, 7)
    assert placed(again, fleet) == []
    assert fleet.roster.assign(capacity=lambda version: 3) == (), "the worker is kept free for it"
    fleet.load("a", -2)
    assert placed(again, fleet) == [("a", 7)]


def test_a_suspect_may_take_a_worker_that_is_full():
    fleet = Workers("a", max_in_flight=1)
    again = resending(fleet)
    fleet.load("a", 1)
    isolated(again, 7)
    assert placed(again, fleet) == []
    fleet.load("a", -1)
    assert placed(again, fleet) == [("a", 7)]


def test_suspects_are_tried_one_after_another_while_others_go_on():
    fleet = Workers("a", "b")
    again = resending(fleet)
    isolated(again, 3, 4)
    again.add(9)
    assert placed(again, fleet) == [("a", 3), ("b", 9)]
    fleet.load("a", -1)
    again.finished(3)
    fleet.load("b", -1)
    assert placed(again, fleet) == [("a", 4)]
    again.finished(4)
    assert len(fleet.roster.assign(capacity=lambda version: 8)) == 2, "no worker is kept free any more"


def test_a_suspect_whose_worker_dies_too_is_quarantined_with_its_evidence_and_frees_the_way():
    fleet = Workers("a", "b")
    again = resending(fleet)
    isolated(again, 3, 4)
    assert placed(again, fleet) == [("a", 3)]
    fleet.roster.leave("a")
    [(request_id, evidence)] = again.returned([3], DIED).quarantined
    assert (request_id, evidence) == (3, ("rollout-9 died", "rollout-9 died"))
    assert placed(again, fleet) == [("b", 4)]


def test_a_suspect_whose_kept_worker_leaves_before_it_was_sent_gets_another():
    fleet = Workers("a", "b")
    again = resending(fleet)
    fleet.load("a", 1)
    fleet.load("b", 2)
    isolated(again, 7)
    assert placed(again, fleet) == []
    fleet.roster.leave("a")
    fleet.load("b", -2)
    assert placed(again, fleet) == [("b", 7)]
