"""A whole job on simulated roles in virtual time: real driver, ledger, buffer and pools; faults and times by seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.data.draws import Epochs
from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.stream import PromptStream
from rlhf_cluster.driver.assemble import Setting, open_driver
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.ledger.ledger import read_history
from rlhf_cluster.driver.loop import Driver
from rlhf_cluster.driver.prompts import JobPrompts
from rlhf_cluster.driver.sizes import read_desired, sizes_of
from rlhf_cluster.errors import RlhfError
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.records.events import Event
from rlhf_cluster.runtime.roles import Roles, open_roles
from rlhf_cluster.testing import BareSpecs, virtual_time
from rlhf_cluster.testing.fleet import Pace, SimulatedRuntime
from rlhf_cluster.testing.virtual_time import VirtualClock

Beside = Callable[[Driver, Roles], Any]
"""A coroutine function that runs beside the driver: whoever scales, drains or pauses."""


class Killed(BaseException):
    """The driver's process ends here, as far as a simulation can end a process."""


@dataclass
class SimulatedJob:
    """One job directory; `run` drives it once, from wherever the ledger says it is."""

    job: JobConfig
    job_dir: Path
    pace: Pace = field(default_factory=Pace)
    wrap: Callable[[Any], Any] = lambda role: role
    num_rows: int = 1000
    events: list[Event] = field(default_factory=list)
    runtime: SimulatedRuntime | None = None
    until_s: float = 100_000.0

    def run(self, *, at: Callable[[str], None] = lambda transition: None, beside: Beside | None = None) -> float:
        """Virtual seconds that it took. What the driver raises is raised."""
        clock = VirtualClock()
        virtual_time.run(self._drive(clock, at, beside), clock=clock, until_s=self.until_s)
        return clock.monotonic()

    def outcome(self, **options: Any) -> str:
        """`done`, or the name of the error it ended with."""
        try:
            self.run(**options)
        except RlhfError as error:
            return type(error).__name__
        return "done"

    def losses(self) -> list[str]:
        """`float.hex()` of each step's loss as first learned."""
        steps = read_history(self.job_dir).steps
        return [steps[step].learned[0].loss for step in sorted(steps) if steps[step].learned]

    def check(self) -> None:
        """The ledger proves itself, however the job ended."""
        report = audit(read_history(self.job_dir), max_staleness=self.job.train.max_staleness)
        assert report.ok, [found for found in report.checks if not found.ok]

    async def _drive(self, clock: VirtualClock, at: Callable[[str], None], beside: Beside | None) -> None:
        claim = Claim.take(self.job_dir, take_over=True)
        runtime = self.runtime = SimulatedRuntime(self.pace, wrap=self.wrap)
        emit = self.events.append
        setting = Setting(
            job=self.job, job_dir=self.job_dir, claim=claim, stop=asyncio.Event(), emit=emit, clock=clock, at=at
        )
        specs = BareSpecs(
            epoch=claim.epoch, num_ranks=self.job.learner.num_ranks, full_every=self.job.weights.full_every
        )
        desired = read_desired(self.job_dir)
        async with (
            open_roles(runtime, self.job, specs, sizes=sizes_of(desired), clock=clock, emit=emit) as roles,
            open_driver(setting, roles, self._prompts(), desired=desired, serve_control=False) as driver,
        ):
            other = asyncio.create_task(beside(driver, roles)) if beside else None
            try:
                await driver.run(asyncio.Event())
            finally:
                if other:
                    other.cancel()
                    await asyncio.gather(other, return_exceptions=True)
        await runtime.close()

    def _prompts(self) -> JobPrompts:
        rows = [Row(number=number, prompt=f"prompt {number}") for number in range(self.num_rows)]
        return JobPrompts(
            train=PromptStream(Epochs(rows, seed=0), _tokenize, max_prompt_tokens=16),
            eval=(),
            decode=lambda completions: [""] * len(completions),
            probe_token_ids=np.zeros(1, np.int32),
        )


def _tokenize(row: Row) -> tuple[str, np.ndarray]:
    return str(row.prompt), np.array([2, 3 + row.number], np.int32)
