"""A driver's parts around fakes: real ledger, real buffer, real prompt stream; rollout workers are the real one on the
scripted engine, or simulated ones in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from rlhf_cluster.config import JobConfig
from rlhf_cluster.data.draws import Epochs
from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.stream import PromptStream
from rlhf_cluster.driver.assemble import Setting, open_driver
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.clock import Clock, SystemClock
from rlhf_cluster.driver.ledger.ledger import read_history
from rlhf_cluster.driver.loop import Driver
from rlhf_cluster.driver.prompts import JobPrompts
from rlhf_cluster.driver.sizes import read_desired, sizes_of
from rlhf_cluster.flow.history import History
from rlhf_cluster.records import Adopted, Prompt
from rlhf_cluster.records.events import Event
from rlhf_cluster.runtime.roles import Roles, open_roles
from rlhf_cluster.testing import BareSpecs, fake_roles, virtual_time
from rlhf_cluster.testing.fleet import SimulatedRuntime
from rlhf_cluster.testing.virtual_time import VirtualClock

Result = TypeVar("Result")
Act = Callable[[Driver, Roles], Awaitable[Result]]

NUM_ROWS = 7
BOUND_S = 20.0
VIRTUAL_BOUND_S = 20_000.0


def tokenize(row: Row) -> tuple[str, np.ndarray]:
    return str(row.prompt), np.array([2, 3 + row.number], np.int32)


def decode(completions: Any) -> list[str]:
    return [" ".join(map(str, tokens.tolist())) for tokens in completions]


def prompt_stream() -> PromptStream:
    rows = [Row(number=number, prompt=f"prompt {number}") for number in range(NUM_ROWS)]
    return PromptStream(Epochs(rows, seed=0), tokenize, max_prompt_tokens=16)


def eval_prompts(num: int = 3) -> tuple[Prompt, ...]:
    return tuple(
        Prompt(prompt_id=f"eval-{number}/0", text="", token_ids=np.array([2, number], np.int32))
        for number in range(num)
    )


class Stage:
    """A job on roles of a test's choice: `drive` it from start to end, or `play` with its driver.

    On a `SimulatedRuntime` it runs in virtual time.
    """

    def __init__(self, job: JobConfig, roles: Any = None, *, job_dir: Path, num_eval: int = 0) -> None:
        self.job = job
        self.runtime: Any = roles or fake_roles()
        self.job_dir = job_dir
        self.prompts = JobPrompts(
            train=prompt_stream(), eval=eval_prompts(num_eval), decode=decode, probe_token_ids=np.zeros(1, np.int32)
        )
        self.events: list[Event] = []
        self.stop = asyncio.Event()
        self.transitions: list[str] = []
        self.at: Callable[[str], None] = self.transitions.append
        self.clock: Clock = VirtualClock() if isinstance(self.runtime, SimulatedRuntime) else SystemClock()

    @property
    def history(self) -> History:
        return read_history(self.job_dir)

    def seen(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Driver, Roles]]:
        clock, claim = self.clock, Claim.take(self.job_dir, take_over=True)
        job = self.job
        specs = BareSpecs(epoch=claim.epoch, num_ranks=job.learner.num_ranks, full_every=job.weights.full_every)
        setting = Setting(
            job=self.job,
            job_dir=self.job_dir,
            claim=claim,
            stop=self.stop,
            emit=self.events.append,
            clock=clock,
            at=self.at,
        )
        desired = read_desired(self.job_dir)
        emit, sizes = self.events.append, sizes_of(desired)
        async with (
            open_roles(self.runtime, self.job, specs, sizes=sizes, clock=clock, emit=emit) as roles,
            open_driver(setting, roles, self.prompts, desired=desired, serve_control=False) as driver,
        ):
            yield driver, roles
        claim.release()

    def play(self, act: Act[Result]) -> Result:
        """What `act` gives, on an open driver; whatever is raised is raised."""
        is_virtual = isinstance(self.clock, VirtualClock)

        async def whole() -> Result:
            async with self.open() as (driver, roles):
                return await asyncio.wait_for(act(driver, roles), VIRTUAL_BOUND_S if is_virtual else BOUND_S)

        return virtual_time.run(whole(), clock=self.clock) if is_virtual else asyncio.run(whole())

    def drive(self) -> None:
        """Run to the end."""
        self.play(lambda driver, roles: driver.run(self.stop))

    async def serve(self, driver: Driver) -> list[Adopted]:
        """The rollout workers adopt the learner's version."""
        learner = driver.learner
        return await driver.fleet.offer(await learner.publish(), publish_full=learner.publish_full)


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., Stage]:
    """`stage(job, roles)`; every stage of a test has the same job directory, so a second one resumes the first."""

    def build(job: JobConfig, roles: Any = None, **options: Any) -> Stage:
        return Stage(job, roles, **{"job_dir": tmp_path, **options})

    return build
