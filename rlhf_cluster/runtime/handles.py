"""Handles of roles on Ray: the same methods as the roles, so the driver cannot tell where a role runs.

A handle only forwards and translates: an error raised in the actor arrives as itself, a dead process as `RoleDied`.
What any other error becomes is decided in the actor, see `runtime/host.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions

from rlhf_cluster.errors import RlhfError, RoleDied, RoleError, RoleTimeout
from rlhf_cluster.records import (
    Adopted,
    Batch,
    RolloutGroup,
    RolloutRequest,
    StepReport,
    WeightHandle,
    WorkerStatus,
)


class RemoteRole:
    """What all roles share."""

    def __init__(self, actor: Any, *, role: str, worker_id: str) -> None:
        self._actor = actor
        self._role = role
        self._worker_id = worker_id

    async def placed(self) -> None:
        """Return when the actor has a process; a cluster without room for it keeps it waiting."""
        await self._ask("placed")

    async def gone(self) -> None:
        """Never returns; raises `RoleDied` as soon as the process is gone, also when nothing else is asked of it."""
        await self._ask("serving")

    async def start(self) -> None:
        await self._call("start")

    async def status(self) -> WorkerStatus:
        return await self._call("status")

    async def stacks(self) -> str:
        """Where the threads of the process are; the first line says where it can be read again."""
        return await self._ask("stacks")

    async def close(self) -> None:
        await self._call("close")

    def kill(self) -> None:
        """End the process without asking it."""
        ray.kill(self._actor, no_restart=True)

    async def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return await self._actor.call.remote(method, arguments, options)
        except ray.exceptions.RayError as error:
            raise self._translated(error, method) from error

    async def _ask(self, method: str) -> Any:
        """The host rather than the role."""
        try:
            return await getattr(self._actor, method).remote()
        except ray.exceptions.RayError as error:
            raise self._translated(error, method) from error

    async def _stream(self, method: str, *arguments: Any) -> AsyncIterator[Any]:
        references = self._actor.stream.options(num_returns="streaming").remote(method, arguments)
        is_over = False
        try:
            async for reference in references:
                yield await reference
            is_over = True
        except ray.exceptions.RayError as error:
            is_over = True
            raise self._translated(error, method) from error
        finally:
            if not is_over:
                # Nobody reads on: the role must not go on generating.
                ray.cancel(references)

    def _translated(self, error: ray.exceptions.RayError, method: str) -> Exception:
        where = {"role": self._role, "worker_id": self._worker_id, "activity": method}
        if isinstance(error, ray.exceptions.RayTaskError):
            if isinstance(error.cause, RlhfError):
                return error.cause
            return RoleError(f"{self._role} {self._worker_id} failed in {method}: {error.cause!r}", **where)
        if isinstance(error, ray.exceptions.GetTimeoutError):
            return RoleTimeout(f"{self._role} {self._worker_id} did not answer {method} in time: {error}", **where)
        # All else that Ray raises means that the process, its machine or its answer is gone, under unrelated types:
        # ActorDiedError, ActorUnavailableError, OutOfMemoryError, NodeDiedError, ObjectLostError, OwnerDiedError, ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return RoleDied(f"{self._role} {self._worker_id} died during {method}: {reason}", **where)


class RemoteRolloutWorker(RemoteRole):
    def run(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[tuple[RolloutGroup, ...]]:
        return self._stream("run", tuple(requests))

    async def adopt(self, handle: WeightHandle) -> Adopted:
        return await self._call("adopt", handle)

    async def drain(self) -> None:
        await self._call("drain")


class RemoteRewardServer(RemoteRole):
    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        return await self._call("score", tuple(groups))


class RemoteReferenceScorer(RemoteRole):
    async def logprobs(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        return await self._call("logprobs", tuple(groups))


class RemoteLearnerRank(RemoteRole):
    async def rendezvous(self) -> str:
        return await self._call("rendezvous")

    async def start(self, meeting_point: str | None = None) -> None:
        await self._call("start", meeting_point)

    async def accumulate(self, algorithm: Any, groups: Sequence[RolloutGroup], *, step: int) -> None:
        await self._call("accumulate", algorithm, tuple(groups), step=step)

    async def update(self, algorithm: Any, batch: Batch) -> StepReport:
        return await self._call("update", algorithm, batch)

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        return await self._call("score", tuple(groups))

    async def assess(self, algorithm: Any, groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
        return await self._call("assess", algorithm, tuple(groups))

    async def publish(self) -> WeightHandle | None:
        return await self._call("publish")

    async def publish_full(self) -> WeightHandle:
        return await self._call("publish_full")

    async def save(self, path: Path, *, with_state: bool) -> None:
        await self._call("save", path, with_state=with_state)

    async def load(self, path: Path) -> None:
        await self._call("load", path)


HANDLES = {
    "rollout worker": RemoteRolloutWorker,
    "reward server": RemoteRewardServer,
    "reference scorer": RemoteReferenceScorer,
    "learner": RemoteLearnerRank,
}
