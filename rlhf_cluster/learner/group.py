"""The learner group: N ranks that look like one learner to the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.records import Batch, RolloutGroup, StepReport, WeightHandle, WorkerStatus
from rlhf_cluster.roles import Role

Result = TypeVar("Result")


class Rank(Role, Protocol):
    """What the group asks of each of its ranks; `LearnerRole`, or a handle of one."""

    async def rendezvous(self) -> str: ...

    async def start(self, meeting_point: str | None) -> None: ...

    async def accumulate(self, algorithm: Algorithm, groups: Sequence[RolloutGroup], *, step: int) -> None: ...

    async def update(self, algorithm: Algorithm, batch: Batch) -> StepReport: ...

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]: ...

    async def assess(self, algorithm: Algorithm, groups: Sequence[RolloutGroup]) -> Mapping[str, float]: ...

    async def publish(self) -> WeightHandle | None: ...

    async def publish_full(self) -> WeightHandle: ...

    async def save(self, path: Path, *, with_state: bool) -> None: ...

    async def load(self, path: Path) -> None: ...


class LearnerGroup:
    """Implements `roles.Learner` over the handles of its ranks: every call goes to all, rank 0's answer counts."""

    def __init__(self, ranks: Sequence[Rank]) -> None:
        self.ranks = tuple(ranks)

    async def start(self) -> None:
        meeting_point = await self.ranks[0].rendezvous() if len(self.ranks) > 1 else None
        await self._all(lambda rank: rank.start(meeting_point))

    async def accumulate(self, algorithm: Algorithm, groups: Sequence[RolloutGroup], *, step: int) -> None:
        await self._all(lambda rank: rank.accumulate(algorithm, groups, step=step))

    async def update(self, algorithm: Algorithm, batch: Batch) -> StepReport:
        return await self._all(lambda rank: rank.update(algorithm, batch))

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        return await self._all(lambda rank: rank.score(groups))

    async def assess(self, algorithm: Algorithm, groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
        return await self._all(lambda rank: rank.assess(algorithm, groups))

    async def publish(self) -> WeightHandle:
        handle = await self._all(lambda rank: rank.publish())
        assert handle is not None, "rank 0 returns the handle"
        return handle

    async def publish_full(self) -> WeightHandle:
        return await self.ranks[0].publish_full()

    def save(self, path: Path, *, with_state: bool = False) -> asyncio.Future[list[None]]:
        """Write the policy as it is now, even when the answer is awaited after later calls; done when the files are
        there. The group learns on while they are written."""
        # Gathered here and not in a coroutine: the ranks are called in the order in which this object was.
        return asyncio.gather(*(rank.save(path, with_state=with_state) for rank in self.ranks))

    async def load(self, path: Path) -> None:
        await self._all(lambda rank: rank.load(path))

    async def status(self) -> WorkerStatus:
        """Of the rank that is furthest behind: the others wait for it."""
        statuses = await asyncio.gather(*(rank.status() for rank in self.ranks))
        return min(statuses, key=lambda status: status.tokens_total)

    async def stacks(self) -> str:
        """Of every rank that can tell them."""
        tell = [stacks() for rank in self.ranks if (stacks := getattr(rank, "stacks", None))]
        return "\n".join(await asyncio.gather(*tell))

    async def kill(self) -> None:
        """End all ranks at once, without asking: one that is left alone hangs in a collective. A rank in this process
        can only be closed; what it raises says nothing new about a group that is given up."""
        closing = []
        for rank in self.ranks:
            if kill := getattr(rank, "kill", None):
                kill()
            else:
                closing.append(rank.close())
        await asyncio.gather(*closing, return_exceptions=True)

    async def close(self) -> None:
        await asyncio.gather(*(rank.close() for rank in self.ranks))

    async def _all(self, call: Callable[[Rank], Awaitable[Result]]) -> Result:
        """The first failure of any rank is raised at once; the others may be stuck in a collective by then."""
        return (await asyncio.gather(*(call(rank) for rank in self.ranks)))[0]
