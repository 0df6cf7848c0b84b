"""What the tasks of a job that generates work with, and what they all say of where a row comes from."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_cluster.config import JobConfig
from rlhf_cluster.data.chats import Messages
from rlhf_cluster.data.stream import PromptStream
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.fleet import Fleet
from rlhf_cluster.driver.rollouts import request_seed
from rlhf_cluster.driver.sampler import Sampler
from rlhf_cluster.driver.scoring import DeadlyGroup, Scoring
from rlhf_cluster.records import Prompt, RolloutGroup, RolloutRequest, Sampling
from rlhf_cluster.records.events import Event, PromptQuarantined

BLOCK = 64
"""Groups that are labelled or revised, and then written, together: what a kill can cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    job: JobConfig
    job_dir: Path
    prompts: PromptStream
    sampler: Sampler
    scoring: Scoring
    fleet: Fleet
    emit: Callable[[Event], None]
    clock: Clock
    step: int
    """Optimizer steps that were done before: 0 in a job that only generates."""

    async def blocks(self, requests: Iterable[RolloutRequest]) -> AsyncGenerator[list[RolloutGroup]]:
        """The answers, at most BLOCK at a time, in order; without the prompts that workers died of."""
        async with aclosing(self.sampler.stream(requests, quarantine=self.quarantine)) as stream:
            async for groups in stream:
                for first in range(0, len(groups), BLOCK):
                    yield groups[first : first + BLOCK]

    async def scored(self, groups: Sequence[RolloutGroup]) -> list[RolloutGroup]:
        """With rewards where the job has any, and without the prompts that reward servers died of."""
        left = list(groups)
        while left:
            try:
                return list(await self.scoring.rewarded(left))
            except DeadlyGroup as error:
                self.quarantine(error.group.prompt, error.evidence)
                left = [group for group in left if group.request_id != error.group.request_id]
        return left

    def quarantine(self, prompt: Prompt, evidence: tuple[str, ...]) -> None:
        event = PromptQuarantined(
            time_s=self.clock.time(), step=self.step, request_id=-1, prompt_id=prompt.prompt_id, evidence=evidence
        )
        self.emit(event)

    def provenance(self, group: RolloutGroup, *, sampling: Sampling) -> dict[str, Any]:
        """The columns that say which policy drew a group's completions, and how to draw them again."""
        newest = self.fleet.newest
        return {
            "job": self.job.name,
            "model": self.job.model,
            "weight_version": group.oldest_version,
            "weight_fingerprint": newest.manifest.fingerprint if newest else None,
            "sampling": asdict(sampling),
            "request_seed": request_seed(self.job.seed, group.request_id),
            "worker_id": group.worker_id,
        }


def plain_prompt(prompt: str | Messages) -> str:
    """A prompt as a person reads it: a chat of several messages with the name of each role in front."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)
