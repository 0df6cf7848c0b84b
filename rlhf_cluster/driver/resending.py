"""Requests that go out again: in which order, to which worker, and which of them must be alone there.

Told of requests whose worker was lost, drained or silent; asked for placements whenever a worker may have room.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from rlhf_cluster.driver.fleet import Fleet
from rlhf_cluster.errors import RoleDied, RoleHung, RoleTimeout
from rlhf_cluster.flow.suspects import Suspects, Verdict

DEADLY = (RoleDied, RoleHung, RoleTimeout)
"""Losses that a prompt may be to blame for; a refused weight version or a drain is not among them."""


class Resending:
    def __init__(self, fleet: Fleet, *, max_deaths: int) -> None:
        self._fleet = fleet
        self._suspects = Suspects(max_deaths=max_deaths)
        self._waiting: list[int] = []
        self._avoid: dict[int, set[str]] = {}
        self._alone: tuple[int, str] | None = None
        """The one isolated request that is out or about to go, and the worker kept free for it."""

    def add(self, request_id: int, *, avoid: str | None = None) -> None:
        """It goes out again, oldest first; not to `avoid`, which has it already."""
        if request_id not in self._avoid:
            heapq.heappush(self._waiting, request_id)
        self._avoid.setdefault(request_id, set()).update({avoid} if avoid else ())

    def returned(self, request_ids: Sequence[int], error: Exception | None) -> Verdict:
        """What the loss of their worker says about these requests."""
        self._free(request_ids)
        if isinstance(error, DEADLY):
            return self._suspects.worker_lost(request_ids, str(error))
        return Verdict(quarantined=(), isolated=())

    def finished(self, request_id: int) -> None:
        self._suspects.finished(request_id)
        self._free([request_id])

    def placements(self, least_version: Callable[[int], int | None]) -> Iterator[tuple[str, int]]:
        """(worker, request) to send now. `least_version` says what a request's worker must serve, None that the
        request is not needed any more."""
        if not self._waiting:
            return
        waiting, self._waiting = sorted(self._waiting), []
        for request_id in waiting:
            version = least_version(request_id)
            if version is None:
                del self._avoid[request_id]
                continue
            worker_id = self._place(request_id, version)
            if worker_id is None:
                self._waiting.append(request_id)
            else:
                del self._avoid[request_id]
                yield worker_id, request_id
        heapq.heapify(self._waiting)

    def _place(self, request_id: int, version: int) -> str | None:
        roster = self._fleet.roster
        avoid = self._avoid[request_id]
        if not self._suspects.is_isolated(request_id):
            return roster.place(least_version=version, avoid=avoid)
        if self._alone is not None and self._alone[1] not in roster.versions:
            self._alone = None
        if self._alone is None and (worker_id := roster.place(least_version=version, avoid=avoid, full_too=True)):
            roster.reserve(worker_id, reserved=True)
            self._alone = (request_id, worker_id)
        if self._alone is None or self._alone[0] != request_id or self._fleet.num_held(self._alone[1]):
            return None
        return self._alone[1]

    def _free(self, request_ids: Sequence[int]) -> None:
        if self._alone is not None and self._alone[0] in request_ids:
            self._fleet.roster.reserve(self._alone[1], reserved=False)
            self._alone = None
