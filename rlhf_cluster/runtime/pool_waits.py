"""How long a pool waits for its replicas, and the wait for a machine: without end while others serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rlhf_cluster.errors import RoleTimeout
from rlhf_cluster.runtime.base import Runtime
from rlhf_cluster.runtime.members import Member


class PoolClock(Protocol):
    def time(self) -> float:
        """Unix seconds, for people."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolBounds:
    start_s: float
    """For a replica to start once it has a machine, and to get one while no other serves."""
    close_s: float
    """For a replica to close; then it is killed."""
    ask_s: float = 1.0
    """Between two looks at why a replica has no machine yet."""
    pending_s: float = 3.0
    """A process that takes no longer than this to appear is not worth telling about."""


async def machine_for(
    member: Member,
    runtime: Runtime,
    *,
    bounds: PoolBounds,
    clock: PoolClock,
    pends: Callable[[str], None],
    is_alone: Callable[[], bool],
) -> None:
    """Return when the replica has a process; `pends` is told why it has none yet.

    A node may join at any time, so this raises `RoleTimeout` only after it `is_alone` for as long as a start may take.
    """
    placing = asyncio.ensure_future(runtime.placed(member.handle))
    asked_s = alone_s = clock.monotonic()
    reason = ""
    try:
        while not (await asyncio.wait({placing}, timeout=bounds.ask_s))[0]:
            if clock.monotonic() - asked_s >= bounds.pending_s:
                reason = await runtime.pending_reason(member.spec)
                pends(reason)
            if not is_alone():
                alone_s = clock.monotonic()
            elif clock.monotonic() - alone_s >= bounds.start_s:
                raise RoleTimeout(
                    f"{member.spec.role} {member.worker_id} got no machine within {bounds.start_s:g} s: {reason}; "
                    "lower what it reserves, or see [limits] to allow more",
                    role=member.spec.role,
                    worker_id=member.worker_id,
                    activity="waiting for a machine",
                )
        placing.result()
    finally:
        placing.cancel()
