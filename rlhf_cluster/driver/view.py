"""The whole state of a running job as one record: what `rlhf status` shows and the dashboard will."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.records import WorkerStatus
from rlhf_cluster.records.members import JobView, MemberView, PoolView

if TYPE_CHECKING:
    from rlhf_cluster.driver.figures import Statuses
    from rlhf_cluster.driver.loop import Driver
    from rlhf_cluster.driver.pacing import Pacing
    from rlhf_cluster.runtime.learner_host import LearnerHost
    from rlhf_cluster.runtime.roles import Roles

MAX_ASKS_PER_S = 100.0
"""Statuses asked for; with more workers than that, a view is as old as it takes to ask them all."""


class Views:
    def __init__(
        self,
        driver: Driver,
        roles: Roles,
        statuses: Statuses,
        pacing: Pacing,
        *,
        epoch: int,
        stop: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._roles = roles
        self._statuses = statuses
        self._pacing = pacing
        self._epoch = epoch
        self._stop = stop
        self._clock = clock
        self._asked_s = -1e9

    async def now(self) -> JobView:
        driver, clock = self._driver, self._clock
        num_roles = sum(pool.size for pool in self._roles.pools.values()) + len(self._roles.learner.members)
        if clock.monotonic() - self._asked_s >= num_roles / MAX_ASKS_PER_S:
            self._asked_s = clock.monotonic()
            await self._statuses.ask()
        newest = self._statuses.newest
        line = driver.rollouts.buffer.snapshot()
        return JobView(
            time_s=clock.time(),
            epoch=self._epoch,
            job_name=driver.job.name,
            state=self._state(),
            phase=driver.phase,
            step=driver.step,
            num_steps=driver.job.train.num_steps,
            num_in_flight=line.num_in_flight,
            num_complete=line.num_complete,
            waiting_for=driver.rollouts.waiting_for(),
            bottleneck=self._pacing.sentence,
            pools=(
                *(pool.view(newest) for pool in self._roles.pools.values()),
                learner_view(self._roles.learner, newest),
            ),
        )

    def _state(self) -> str:
        if self._stop.is_set():
            return "stopping"
        return "paused" if self._driver.rollouts.paused else "running"


def learner_view(host: LearnerHost, statuses: dict[str, WorkerStatus]) -> PoolView:
    """The ranks as members of a pool of fixed size."""
    said = {worker_id: statuses.get(worker_id) for worker_id in host.members}
    members = [
        MemberView(
            role="learner",
            worker_id=worker_id,
            state="serving" if status is not None else "starting",
            version=status.version if status else -1,
            num_in_flight=status.num_in_flight if status else 0,
            rss_bytes=status.rss_bytes if status else 0,
            process_id=status.process_id if status else 0,
        )
        for worker_id, status in said.items()
    ]
    return PoolView(
        role="learner",
        desired=len(members),
        num_restarts=host.num_restarts,
        last_error=host.last_error.splitlines()[0] if host.last_error else "",
        members=tuple(members),
    )
