"""The whole state of a running job as one record: what `rlhf status` shows and the dashboard will."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.sizes import AUTOMATIC
from rlhf_cluster.records import WorkerStatus
from rlhf_cluster.records.members import JobView, MemberView, PoolView
from rlhf_cluster.runtime.members import Rates

if TYPE_CHECKING:
    from rlhf_cluster.driver.figures import Statuses
    from rlhf_cluster.driver.loop import Driver
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
        *,
        epoch: int,
        stop: asyncio.Event,
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._roles = roles
        self._statuses = statuses
        self._pacing = driver.pacing
        self._ranks = Ranks(roles.learner, clock)
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
        line = driver.feed.line()
        num_done, num_total = driver.progress
        return JobView(
            time_s=clock.time(),
            epoch=self._epoch,
            job_name=driver.job.name,
            state=self._state(),
            phase=driver.phase,
            step=num_done,
            num_steps=num_total,
            num_in_flight=line.num_in_flight,
            num_complete=line.num_complete,
            waiting_for=driver.feed.waiting_for(),
            bottleneck=self._pacing.sentence,
            pools=(
                *(self._pool(name, pool.view(newest)) for name, pool in self._roles.pools.items()),
                self._ranks.view(newest),
            ),
            time_split=self._pacing.time_split,
            guards=driver.guards.sentence,
            unit=driver.job.unit,
        )

    def _pool(self, name: str, view: PoolView) -> PoolView:
        """With what a policy says of its size, where one can."""
        if name != AUTOMATIC:
            return view
        pacing, bounds = self._pacing, self._pacing.sizes.bounds
        powers: dict[str, Any] = {} if bounds is None else {"mode": "auto", **asdict(bounds)}
        return replace(view, reason=pacing.reason, recommended=pacing.recommended, **powers)

    def _state(self) -> str:
        if self._stop.is_set():
            return "stopping"
        return "paused" if self._driver.feed.paused else "running"


class Ranks:
    """The ranks of the learner as members of a pool of fixed size, with their rates and how long each is as it is."""

    def __init__(self, host: LearnerHost, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        self._rates: dict[str, Rates] = {}
        self._since: dict[str, tuple[str, float]] = {}
        """By rank, its state and the Unix time at which that was first seen."""

    def view(self, statuses: Mapping[str, WorkerStatus]) -> PoolView:
        host = self._host
        members = tuple(self._member(worker_id, statuses.get(worker_id)) for worker_id in host.members)
        for left in self._rates.keys() - host.members.keys():
            del self._rates[left], self._since[left]
        return PoolView(
            role="learner",
            desired=len(members),
            num_restarts=host.num_restarts,
            last_error=host.last_error.splitlines()[0] if host.last_error else "",
            members=members,
        )

    def _member(self, worker_id: str, status: WorkerStatus | None) -> MemberView:
        rates = self._rates.setdefault(worker_id, Rates())
        if status is not None:
            rates.saw(status, now_s=self._clock.monotonic())
        state = "serving" if status is not None else "starting"
        if worker_id not in self._since or self._since[worker_id][0] != state:
            self._since[worker_id] = (state, self._clock.time())
        said = rates.fields() if status is not None else {}
        return MemberView(role="learner", worker_id=worker_id, state=state, since_s=self._since[worker_id][1], **said)
