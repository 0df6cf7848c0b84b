"""The learner group: N ranks that look like one learner to the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.records import Batch, StepReport, WeightHandle, WorkerStatus
from rlhf_cluster.roles import Role

Result = TypeVar("Result")


class Rank(Role, Protocol):
    """What the group asks of each of its ranks; `LearnerRole`, or a handle of one."""

    async def rendezvous(self) -> str: ...

    async def start(self, meeting_point: str | None) -> None: ...

    async def update(self, algorithm: Algorithm, batch: Batch) -> StepReport: ...

    async def publish(self) -> WeightHandle | None: ...

    async def save(self, path: Path, *, with_state: bool) -> None: ...

    async def load(self, path: Path) -> None: ...


class LearnerGroup:
    """Implements `roles.Learner` over the handles of its ranks: every call goes to all, rank 0's answer counts."""

    def __init__(self, ranks: Sequence[Rank]) -> None:
        self.ranks = tuple(ranks)

    async def start(self) -> None:
        meeting_point = await self.ranks[0].rendezvous() if len(self.ranks) > 1 else None
        await self._all(lambda rank: rank.start(meeting_point))

    async def update(self, algorithm: Algorithm, batch: Batch) -> StepReport:
        return await self._all(lambda rank: rank.update(algorithm, batch))

    async def publish(self) -> WeightHandle:
        handle = await self._all(lambda rank: rank.publish())
        assert handle is not None, "rank 0 returns the handle"
        return handle

    async def save(self, path: Path, *, with_state: bool = False) -> None:
        await self._all(lambda rank: rank.save(path, with_state=with_state))

    async def load(self, path: Path) -> None:
        await self._all(lambda rank: rank.load(path))

    async def status(self) -> WorkerStatus:
        return await self.ranks[0].status()

    async def close(self) -> None:
        await asyncio.gather(*(rank.close() for rank in self.ranks))

    async def _all(self, call: Callable[[Rank], Awaitable[Result]]) -> Result:
        """The first failure of any rank is raised at once; the others may be stuck in a collective by then."""
        return (await asyncio.gather(*(call(rank) for rank in self.ranks)))[0]
