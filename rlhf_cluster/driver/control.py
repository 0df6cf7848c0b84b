"""What a person can ask of the running job, and what it answers. The mailbox and, later, the API bring the commands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlhf_cluster.driver.sizes import Bounds
from rlhf_cluster.errors import ConfigError, did_you_mean
from rlhf_cluster.records.commands import Autoscale, Checkpoint, Command, Drain, Pause, Restart, Resume, Scale, Stop

if TYPE_CHECKING:
    from rlhf_cluster.driver.loop import Driver
    from rlhf_cluster.runtime.roles import Roles


class Control:
    """Obeys between two waits of the driver. Every answer is one sentence; a refusal is a `ConfigError`."""

    def __init__(self, driver: Driver, roles: Roles, *, stop: asyncio.Event) -> None:
        self._driver = driver
        self._roles = roles
        self._sizes = driver.pacing.sizes
        self._stop = stop

    async def obey(self, command: Command) -> str:
        obeys: dict[type[Command], Callable[..., str]] = {
            Scale: self._scale,
            Autoscale: self._autoscale,
            Drain: self._drain,
            Restart: self._restart,
            Pause: self._pause,
            Resume: self._resume,
            Checkpoint: self._checkpoint,
            Stop: self._end,
        }
        return obeys[type(command)](command)

    def _scale(self, command: Scale) -> str:
        return self._sizes.by_hand(command.role, command.num_workers)

    def _autoscale(self, command: Autoscale) -> str:
        bounds = Bounds(min_workers=command.min_workers, max_workers=command.max_workers)
        return self._sizes.by_policy(command.role, bounds)

    def _drain(self, command: Drain) -> str:
        for name, pool in self._roles.pools.items():
            if pool.drain(command.worker_id):
                told = f"{command.worker_id} is being drained; {pool.size} {name} wanted from now on"
                return told + self._sizes.keep()
        raise self._no_worker(command.worker_id, "drained")

    def _restart(self, command: Restart) -> str:
        for name, pool in self._roles.pools.items():
            if pool.restart(command.worker_id):
                told = f"{command.worker_id} is being drained, and another takes its place"
                return f"{told}; {pool.size} {name} wanted as before"
        raise self._no_worker(command.worker_id, "restarted")

    def _no_worker(self, worker_id: str, done: str) -> ConfigError:
        known = [each for pool in self._roles.pools.values() for each in pool.handles()]
        hint = did_you_mean(worker_id, known) or f"; at work are {', '.join(known)}"
        return ConfigError(f"no worker {worker_id!r} can be {done} now{hint}")

    def _pause(self, command: Pause) -> str:
        if self._driver.step >= self._driver.job.train.num_steps:
            raise ConfigError(
                "all steps are done, and what is generated now cannot be paused: stop the job, and `rlhf resume` goes "
                "on where it ended"
            )
        self._driver.feed.pause()
        return f"paused at step {self._driver.step}: no new prompts go out, what is under way is finished and kept"

    def _resume(self, command: Resume) -> str:
        if not self._driver.feed.paused:
            return "the job is not paused; it goes on"
        self._driver.feed.go_on()
        return f"resumed at step {self._driver.step}"

    def _checkpoint(self, command: Checkpoint) -> str:
        if not self._driver.job.trains:
            raise ConfigError("the job trains nothing, so there is no checkpoint to write")
        self._driver.wants_checkpoint = True
        paused = ", once the job goes on: it is paused" if self._driver.feed.paused else ""
        return f"a checkpoint is written after step {max(1, self._driver.step_under_way)}{paused}"

    def _end(self, command: Stop) -> str:
        self._stop.set()
        # A paused job would not finish its step.
        self._driver.feed.go_on()
        if not self._driver.job.trains:
            return "the job ends once what is at hand is written"
        step = self._driver.step_under_way
        return f"the job ends after step {step}, with a checkpoint" if step else "the job ends before its first step"
