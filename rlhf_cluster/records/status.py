"""What a role says about itself; answered within 100 ms whatever it is busy with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """Counters only ever grow, so rates are differences of two statuses."""

    role: str
    worker_id: str
    state: str
    """`starting`, `idle`, `busy`, `adopting`, `unverified`, `draining` or `closed`."""
    activity: str
    """What it is doing, in words, for an error message."""
    version: int = -1
    """Weight version it serves; -1 for none, or for roles that have none."""
    num_in_flight: int = 0
    tokens_total: int = 0
    """Tokens processed since start, those thrown away included."""
    tokens_in_flight: int = 0
    """Those of them that belong to requests in flight: what would be lost if it died now."""
    busy_s: float = 0.0
    """Seconds spent working since start."""
    rss_bytes: int = 0
    process_id: int = 0
