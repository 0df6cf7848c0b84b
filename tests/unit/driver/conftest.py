"""A driver's parts around fakes: real buffer, real prompt stream, real rollout workers on the scripted engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_cluster.config import JobConfig
from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.stream import PromptStream
from rlhf_cluster.driver.checkpoints import Checkpoints
from rlhf_cluster.driver.evaluate import Evaluator
from rlhf_cluster.driver.loop import Driver
from rlhf_cluster.driver.rollouts import Rollouts
from rlhf_cluster.records import Prompt
from rlhf_cluster.records.events import Event
from rlhf_cluster.runtime.roles import Roles
from rlhf_cluster.testing import FakeClock, fake_roles

NUM_ROWS = 7


def tokenize(row: Row) -> tuple[str, np.ndarray]:
    return str(row.prompt), np.array([2, 3 + row.number], np.int32)


def decode(completions: Any) -> list[str]:
    return [" ".join(map(str, tokens.tolist())) for tokens in completions]


def prompt_stream() -> PromptStream:
    rows = [Row(number=number, prompt=f"prompt {number}") for number in range(NUM_ROWS)]
    return PromptStream(rows, tokenize, seed=0, max_prompt_tokens=16)


@pytest.fixture
def prompts() -> PromptStream:
    """The stream that every stage starts with, from its beginning."""
    return prompt_stream()


def eval_prompts(num: int = 3) -> list[Prompt]:
    return [
        Prompt(prompt_id=f"eval-{number}/0", text="", token_ids=np.array([2, number], np.int32))
        for number in range(num)
    ]


@dataclass
class Stage:
    """What a test of the driver looks at."""

    job: JobConfig
    roles: Roles
    rollouts: Rollouts
    driver: Driver
    events: list[Event] = field(default_factory=list)

    def seen(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    async def serve(self) -> None:
        """The rollout workers hold the learner's first version."""
        handle = await self.roles.learner.publish()
        for worker_id, worker in self.roles.rollout_workers.items():
            self.rollouts.adopted(worker_id, (await worker.adopt(handle)).version)

    async def next_version(self) -> None:
        """As after a step: the learner has a new version and every worker serves it."""
        self.roles.learner.ranks[0].version += 1
        await self.serve()

    async def close(self) -> None:
        await self.rollouts.aclose()
        for worker in self.roles.rollout_workers.values():
            await worker.close()


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., Stage]:
    def build(job: JobConfig, roles: Roles | None = None, *, num_eval: int = 0, **rollouts: Any) -> Stage:
        roles, events, clock = roles or fake_roles(), [], FakeClock()
        prompts = rollouts.pop("prompts", None) or prompt_stream()
        feeding = Rollouts(job, roles, prompts=prompts, decode=decode, emit=events.append, clock=clock, **rollouts)
        driver = Driver(
            job,
            roles,
            rollouts=feeding,
            evaluator=Evaluator(job, roles, prompts=eval_prompts(num_eval), decode=decode, clock=clock),
            checkpoints=Checkpoints(tmp_path / "checkpoints", keep=job.checkpoint.keep, state=dict, clock=clock),
            emit=events.append,
            clock=clock,
        )
        return Stage(job, roles, feeding, driver, events)

    return build
