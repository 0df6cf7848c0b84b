"""Which worker gets which prompts: the one with the fewest in flight, as long as its version has room.

The roster is told of every change, so that a decision costs the logarithm of the number of workers and not the number:
prompts go out one by one all the time, and there may be a thousand workers. Sans IO.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import count


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    worker_id: str
    version: int
    num_prompts: int
    """At least 1."""


@dataclass(slots=True)
class _Worker:
    order: int
    """Of joining: among equally loaded workers the older one is first, so that a decision can be repeated."""
    version: int
    load: int = 0
    reserved: bool = False


class Roster:
    """The workers that may be given prompts, with the version each serves and what it has in flight."""

    def __init__(self, *, max_in_flight: int) -> None:
        """`max_in_flight` prompts are the most that a worker holds at once."""
        self._max_in_flight = max_in_flight
        self._workers: dict[str, _Worker] = {}
        self._orders = count()
        # By version: (load, order, worker_id). An entry that no longer says what is true of its worker is passed over.
        self._heaps: dict[int, list[tuple[int, int, str]]] = {}

    def serve(self, worker_id: str, *, version: int) -> None:
        """`worker_id` joined, or adopted another version."""
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = _Worker(next(self._orders), version)
        worker.version = version
        self._push(worker_id, worker)

    def leave(self, worker_id: str) -> None:
        """No more prompts for this worker. Leaving twice is fine."""
        self._workers.pop(worker_id, None)

    def load(self, worker_id: str, change: int) -> None:
        """It was sent (positive) or gave back (negative) that many prompts."""
        if worker := self._workers.get(worker_id):
            worker.load += change
            self._push(worker_id, worker)

    def reserve(self, worker_id: str, *, reserved: bool) -> None:
        """A reserved worker is passed over by `assign`: it has a prompt that must be alone."""
        if worker := self._workers.get(worker_id):
            worker.reserved = reserved
            self._push(worker_id, worker)

    @property
    def versions(self) -> dict[str, int]:
        """By worker."""
        return {worker_id: worker.version for worker_id, worker in self._workers.items()}

    def assign(self, *, capacity: Callable[[int], int], num_wanted: int | None = None) -> tuple[Assignment, ...]:
        """Deal up to `num_wanted` prompts (None: as many as there is room for), each to the least loaded worker.

        `capacity` is the buffer's. One assignment a worker, oldest version first, and prompts must be dispatched in
        that order: a prompt for an old version has to stand further ahead in the buffer's line than one for a new
        version. The caller tells the roster by `load` what was really sent.
        """
        room = {version: capacity(version) for version in sorted(self._heaps) if self._least(version) is not None}
        counts: dict[str, int] = {}
        while num_wanted is None or num_wanted > 0:
            choice = min((least for v in room if (least := self._open(v, room)) is not None), default=None)
            if choice is None:
                break
            worker_id = choice[2]
            worker = self._workers[worker_id]
            counts[worker_id] = counts.get(worker_id, 0) + 1
            # A prompt for this version stands ahead of all those for newer ones, so it takes from their room too.
            for version in room:
                room[version] -= version >= worker.version
            worker.load += 1
            self._push(worker_id, worker)
            num_wanted = None if num_wanted is None else num_wanted - 1
        for worker_id, number in counts.items():
            self.load(worker_id, -number)
        dealt = sorted((self._workers[w].version, self._workers[w].order, w) for w in counts)
        return tuple(Assignment(worker_id=w, version=v, num_prompts=counts[w]) for v, _, w in dealt)

    def place(self, *, least_version: int, avoid: Collection[str], full_too: bool = False) -> str | None:
        """The worker for a prompt that goes out again: least loaded of those serving `least_version` or later and not
        in `avoid`; `full_too` also takes one that holds all it may. None where there is none now."""
        fit = [
            (worker.load, worker.order, worker_id)
            for worker_id, worker in self._workers.items()
            if worker.version >= least_version
            and worker_id not in avoid
            and not worker.reserved
            and (full_too or worker.load < self._max_in_flight)
        ]
        return min(fit)[2] if fit else None

    def _open(self, version: int, room: dict[int, int]) -> tuple[int, int, str] | None:
        """The least loaded worker of a version that may be given one more prompt."""
        if any(left <= 0 for newer, left in room.items() if newer >= version):
            return None
        return self._least(version)

    def _least(self, version: int) -> tuple[int, int, str] | None:
        heap = self._heaps.get(version, [])
        while heap and not self._is_current(version, heap[0]):
            heapq.heappop(heap)
        if not heap:
            self._heaps.pop(version, None)
            return None
        return heap[0] if heap[0][0] < self._max_in_flight else None

    def _is_current(self, version: int, entry: tuple[int, int, str]) -> bool:
        worker = self._workers.get(entry[2])
        if worker is None or worker.reserved:
            return False
        return (worker.version, worker.load, worker.order) == (version, entry[0], entry[1])

    def _push(self, worker_id: str, worker: _Worker) -> None:
        if worker.version < 0 or worker.reserved:
            return
        heap = self._heaps.setdefault(worker.version, [])
        heapq.heappush(heap, (worker.load, worker.order, worker_id))
        if len(heap) > 8 * len(self._workers) + 64:
            # Outdated entries below the top would pile up for as long as the job runs.
            heap[:] = {entry for entry in heap if self._is_current(worker.version, entry)}
            heapq.heapify(heap)
