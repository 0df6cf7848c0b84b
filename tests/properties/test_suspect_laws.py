"""Laws of the suspects under any routing: one poison prompt costs a bounded number of workers and no innocent."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.flow.suspects import Suspects


class Fleet:
    """Deals requests to workers at random, keeps isolated ones alone, and lets the poisons kill."""

    def __init__(self, seed: int, *, num_workers: int, num_requests: int, poisons: set[int], max_deaths: int) -> None:
        self.random = random.Random(seed)
        self.suspects = Suspects(max_deaths=max_deaths)
        self.poisons = poisons
        self.waiting = list(range(num_requests))
        self.workers: list[list[int]] = [[] for _ in range(num_workers)]
        self.finished: set[int] = set()
        self.quarantined: dict[int, tuple[str, ...]] = {}
        self.num_deaths = 0

    def run(self) -> None:
        while self.waiting or any(self.workers):
            self.deal()
            worker = self.random.choice([worker for worker in self.workers if worker])
            self.kill(worker) if self.poisons & set(worker) and self.random.random() < 0.5 else self.finish_one(worker)

    def deal(self) -> None:
        self.random.shuffle(self.waiting)
        for request_id in list(self.waiting):
            worker = self.random.choice(self.workers)
            alone = self.suspects.is_isolated(request_id) or any(map(self.suspects.is_isolated, worker))
            if not (alone and worker):
                self.waiting.remove(request_id)
                worker.append(request_id)
        if not any(self.workers):
            self.deal()

    def finish_one(self, worker: list[int]) -> None:
        if innocents := [request_id for request_id in worker if request_id not in self.poisons]:
            request_id = self.random.choice(innocents)
            worker.remove(request_id)
            self.finished.add(request_id)
            self.suspects.finished(request_id)

    def kill(self, worker: list[int]) -> None:
        self.num_deaths += 1
        lost = worker.copy()
        worker.clear()
        verdict = self.suspects.worker_lost(lost, f"death {self.num_deaths}")
        self.quarantined.update(verdict.quarantined)
        # An isolated request that runs elsewhere with others would be drained; here copies do not exist.
        self.waiting += [request_id for request_id in lost if request_id not in self.quarantined]


@settings(deadline=None, max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    num_workers=st.integers(1, 5),
    num_requests=st.integers(1, 25),
    max_deaths=st.integers(1, 4),
    data=st.data(),
)
def test_one_poison_is_found_in_time_and_every_innocent_finishes(seed, num_workers, num_requests, max_deaths, data):
    poison = data.draw(st.integers(0, num_requests - 1))
    fleet = Fleet(seed, num_workers=num_workers, num_requests=num_requests, poisons={poison}, max_deaths=max_deaths)
    fleet.run()
    assert set(fleet.quarantined) == {poison}
    assert fleet.finished == set(range(num_requests)) - {poison}
    assert max_deaths <= fleet.num_deaths <= max_deaths + 1
    assert len(fleet.quarantined[poison]) == fleet.num_deaths


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), num_poisons=st.integers(0, 5), max_deaths=st.integers(2, 3))
def test_several_poisons_are_all_found_in_a_bounded_number_of_deaths(seed, num_poisons, max_deaths):
    poisons = set(range(num_poisons))
    fleet = Fleet(seed, num_workers=3, num_requests=20, poisons=poisons, max_deaths=max_deaths)
    fleet.run()
    assert poisons <= set(fleet.quarantined)
    assert fleet.num_deaths <= (max_deaths + 1) * max(len(fleet.quarantined), num_poisons)


@given(st.lists(st.sets(st.integers(0, 9)), max_size=12))
def test_strikes_and_quarantined_evidence_add_up_to_what_was_in_flight(deaths):
    suspects = Suspects(max_deaths=3)
    quarantined: dict[int, tuple[str, ...]] = {}
    num_in_flight = 0
    for number, request_ids in enumerate(deaths):
        if not quarantined.keys() & request_ids:
            num_in_flight += len(request_ids)
        quarantined.update(suspects.worker_lost(request_ids, f"death {number}").quarantined)
    held = sum(suspects.num_strikes(request_id) for request_id in range(10))
    assert held + sum(map(len, quarantined.values())) == num_in_flight
