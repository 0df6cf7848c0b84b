"""The open roles of a job: a pool for each kind of replica, and the place of the learner group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rlhf_cluster.config import JobConfig
from rlhf_cluster.flow.restarts import RestartBudget
from rlhf_cluster.records.events import WorkerChanged
from rlhf_cluster.runtime.base import Runtime
from rlhf_cluster.runtime.learner_host import LearnerHost
from rlhf_cluster.runtime.pool import Pool
from rlhf_cluster.runtime.pool_waits import PoolBounds, PoolClock
from rlhf_cluster.runtime.spec import RoleSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Everything the driver talks to."""

    rollout: Pool
    reward: Pool | None
    """None for a job without rewards."""
    reference: Pool | None
    """None where the algorithm needs no reference."""
    learner: LearnerHost
    generates: bool = True
    """False for a job without anything to generate: its rollout pool is never started."""

    @property
    def pools(self) -> dict[str, Pool]:
        """By the name that `rlhf scale` takes."""
        rollout = self.rollout if self.generates else None
        named = {"rollout": rollout, "reward": self.reward, "reference": self.reference}
        return {name: pool for name, pool in named.items() if pool is not None}

    async def start(self, *, one_process: bool) -> None:
        """Bring up everything; what fails first is raised as it is."""
        starts: list[Callable[[], Any]] = [*(pool.start for pool in self.pools.values()), self.learner.start]
        if one_process:
            # Loading a model switches torch's default dtype and device for the whole process while it lasts.
            for start in starts:
                await start()
            return
        try:
            async with asyncio.TaskGroup() as together:
                for start in starts:
                    together.create_task(start())
        except BaseExceptionGroup as group:
            # The others were cancelled because of the first: one clear message beats a tree of them.
            raise group.exceptions[0] from None

    def resize(self, sizes: Mapping[str, int]) -> None:
        """Have so many of each role named from now on; one that the job does not have is passed over."""
        for name, pool in self.pools.items():
            if sizes.get(name, pool.size) != pool.size:
                pool.resize(sizes[name])

    async def aclose(self) -> None:
        """Close everything, whatever of it had been started."""
        closing = [*(pool.aclose() for pool in self.pools.values()), self.learner.aclose()]
        await asyncio.gather(*closing, return_exceptions=True)


class Specs(Protocol):
    """What to open for each replica; by number, which is never used twice."""

    def rollout(self, number: int) -> RoleSpec: ...

    def reward(self, number: int) -> RoleSpec: ...

    def reference(self, number: int) -> RoleSpec: ...

    def learner(self, incarnation: int) -> list[RoleSpec]:
        """Every rank of one group."""
        ...


@asynccontextmanager
async def open_roles(
    runtime: Runtime,
    job: JobConfig,
    specs: Specs,
    *,
    sizes: Mapping[str, int] | None = None,
    clock: PoolClock,
    emit: Callable[[WorkerChanged], None] = lambda event: None,
    step: Callable[[], int] = lambda: 0,
) -> AsyncGenerator[Roles]:
    """Start every role the job needs, and close them at the end whatever happened in between. `step` stamps events.

    `sizes` of pools, by name, go before those of the job.
    """
    roles = make_roles(runtime, job, specs, sizes=sizes, clock=clock, emit=emit, step=step)
    try:
        await roles.start(one_process=runtime.one_process)
        roles.resize(sizes or {})
        yield roles
    finally:
        await roles.aclose()


def make_roles(
    runtime: Runtime,
    job: JobConfig,
    specs: Specs,
    *,
    sizes: Mapping[str, int] | None = None,
    clock: PoolClock,
    emit: Callable[[WorkerChanged], None],
    step: Callable[[], int] = lambda: 0,
) -> Roles:
    """The roles of a job, not yet started."""

    def first_size(configured: int, wanted: int | None) -> int:
        """For what is wanted beyond the job file a cluster may have no room today: it comes later, in the background.
        In one process it comes at once, before anything else there loads a model."""
        if wanted is None:
            return configured
        return wanted if runtime.one_process else min(configured, wanted)

    def pool(name: str, role: str, make: Callable[[int], RoleSpec], settings: Any, *, adopts: bool = False) -> Pool:
        return Pool(
            role,
            make,
            runtime,
            size=first_size(settings.num_workers, (sizes or {}).get(name)),
            spares=settings.spares,
            adopts=adopts,
            budget=_budget(job),
            bounds=PoolBounds(start_s=job.limits.start_s, close_s=job.limits.close_s),
            clock=clock,
            emit=emit,
            step=step,
        )

    return Roles(
        rollout=pool("rollout", "rollout worker", specs.rollout, job.rollout, adopts=True),
        reward=pool("reward", "reward server", specs.reward, job.reward_server) if job.has_reward_servers else None,
        reference=pool("reference", "reference scorer", specs.reference, job.reference) if job.has_reference else None,
        learner=LearnerHost(
            runtime,
            make_specs=specs.learner,
            spare=job.learner.spare,
            budget=_budget(job),
            start_s=job.limits.start_s,
            close_s=job.limits.close_s,
            monotonic=clock.monotonic,
        ),
        generates=job.generates,
    )


def _budget(job: JobConfig) -> RestartBudget:
    recovery = job.recovery
    return RestartBudget(
        max_restarts=recovery.max_restarts,
        window_s=recovery.window_s,
        backoff_s=recovery.backoff_s,
        max_backoff_s=recovery.max_backoff_s,
    )
