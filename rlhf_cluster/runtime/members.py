"""What the driver remembers of one replica, and how that looks to people: its rates from two of its statuses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from rlhf_cluster.records import WorkerStatus
from rlhf_cluster.records.members import MemberView
from rlhf_cluster.runtime.spec import RoleSpec

SAID = ("version", "num_in_flight", "tokens_in_flight", "rss_bytes", "process_id")
"""Fields of a status that a view shows as they are."""


@dataclass(slots=True)
class Rates:
    """What one replica said last, and its rates since the time before."""

    seen: WorkerStatus | None = None
    seen_s: float = 0.0
    """Monotonic seconds of the view that held `seen`."""
    tokens_per_s: float = 0.0
    busy_share: float = 0.0

    def saw(self, status: WorkerStatus, *, now_s: float) -> None:
        """The same status again leaves the rates as they are."""
        if status is self.seen:
            return
        if self.seen is not None and now_s > self.seen_s:
            elapsed_s = now_s - self.seen_s
            self.tokens_per_s = (status.tokens_total - self.seen.tokens_total) / elapsed_s
            self.busy_share = min(1.0, (status.busy_s - self.seen.busy_s) / elapsed_s)
        self.seen, self.seen_s = status, now_s

    def fields(self) -> dict[str, Any]:
        """Of a `MemberView`."""
        if self.seen is None:
            return {}
        said = {name: getattr(self.seen, name) for name in SAID}
        return said | {"tokens_per_s": self.tokens_per_s, "busy_share": self.busy_share}


@dataclass(slots=True, kw_only=True)
class Member:
    spec: RoleSpec
    since_s: float
    """Unix time at which it entered its state."""
    state: str = "pending"
    """As last told; see `flow/pool.py`."""
    reason: str = ""
    """Why it is pending or was lost."""
    handle: Any = None
    """None until the runtime has opened it."""
    starting: asyncio.Task[None] | None = None
    mourning: asyncio.Task[None] | None = None
    """Waits for its death."""
    rates: Rates = field(default_factory=Rates)

    @property
    def worker_id(self) -> str:
        return self.spec.worker_id


def view_of(member: Member, status: WorkerStatus | None, *, now_s: float) -> MemberView:
    """`status` is the newest one, None where there is none; then the last one seen is shown."""
    if status is not None:
        member.rates.saw(status, now_s=now_s)
    return MemberView(
        role=member.spec.role,
        worker_id=member.worker_id,
        state=member.state,
        reason=member.reason,
        since_s=member.since_s,
        **(member.rates.fields() if member.state != "lost" else {}),
    )
