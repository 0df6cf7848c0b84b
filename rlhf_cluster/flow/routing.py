"""Which worker gets how many of the next prompts: a snapshot in, assignments out.

One assignment a worker, so that prompts travel in one message; least loaded first; and never more than the buffer
admits against the version a worker serves.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """What routing knows of a rollout worker."""

    worker_id: str
    version: int
    """Weight version it serves; -1 for none yet."""
    num_in_flight: int
    """Prompts it has been sent and not yet returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    worker_id: str
    version: int
    num_prompts: int
    """At least 1."""


def assign(workers: Sequence[WorkerView], *, num_wanted: int, capacities: Mapping[int, int]) -> tuple[Assignment, ...]:
    """Spread up to `num_wanted` prompts over the workers, each to the one with the fewest in flight at that moment.

    `capacities` is the buffer's `capacity` for every version that a worker serves. Assignments come oldest version
    first, and prompts must be dealt and dispatched in that order: a prompt for an old version has to stand further
    ahead in the buffer's line than one for a new version. Workers on a version without capacity get nothing.
    """
    serving = [worker for worker in workers if worker.version >= 0]
    left = _room(serving, capacities)
    counts = [0] * len(serving)
    loads = [(worker.num_in_flight, index) for index, worker in enumerate(serving)]
    heapq.heapify(loads)
    for _ in range(num_wanted):
        # Room only ever shrinks, so a worker refused once is never looked at again.
        while loads and not _has_room(serving[loads[0][1]].version, left):
            heapq.heappop(loads)
        if not loads:
            break
        load, index = loads[0]
        counts[index] += 1
        for version in left:
            left[version] -= version >= serving[index].version
        heapq.heapreplace(loads, (load + 1, index))
    given = sorted((worker.version, index) for index, worker in enumerate(serving) if counts[index])
    return tuple(
        Assignment(worker_id=serving[index].worker_id, version=version, num_prompts=counts[index])
        for version, index in given
    )


def _room(workers: Sequence[WorkerView], capacities: Mapping[int, int]) -> dict[int, int]:
    """By version: how many more prompts may go to that version and older ones together."""
    return {version: capacities[version] for version in sorted({worker.version for worker in workers})}


def _has_room(version: int, left: Mapping[int, int]) -> bool:
    """A prompt for `version` stands ahead of all those for newer versions, so it takes from their room too."""
    return all(room > 0 for newer, room in left.items() if newer >= version)
