"""Held-out evaluation: the rollout workers answer prompts that are never trained on, the reward servers score them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.figures import reward_figures
from rlhf_cluster.driver.rollouts import Decode, request_seed
from rlhf_cluster.records import Prompt, RolloutGroup, RolloutRequest, Sampling
from rlhf_cluster.records.events import Evaluated
from rlhf_cluster.runtime.bounds import each_within, within
from rlhf_cluster.runtime.roles import Roles

SEED_OFFSET = 1 << 40
"""Evaluation requests are numbered from here, far from those of training, so they share no random numbers."""


class Evaluator:
    """Draws with the same seeds every time, so two evaluations differ only by the policy."""

    def __init__(
        self, job: JobConfig, roles: Roles, *, prompts: Sequence[Prompt], decode: Decode, clock: Clock
    ) -> None:
        self.job = job
        self.roles = roles
        self.prompts = tuple(prompts[: job.evaluation.num_prompts])
        self._decode = decode
        self._clock = clock

    async def evaluate(self, *, step: int) -> Evaluated:
        workers = list(self.roles.rollout_workers)
        shares = [self._requests()[n :: len(workers)] for n in range(len(workers))]
        answered = await asyncio.gather(*(self._answer(*pair) for pair in zip(workers, shares, strict=True)))
        groups = tuple(sorted((g for share in answered for g in share), key=lambda group: group.request_id))
        metrics = reward_figures(groups, prefix="eval/reward")
        if "eval/reward/mean" in metrics:
            metrics["eval/reward_mean"] = metrics.pop("eval/reward/mean")
            metrics["eval/reward_std"] = metrics.pop("eval/reward/std")
        metrics["eval/completion_length_mean"] = float(np.concatenate([group.lengths for group in groups]).mean())
        return Evaluated(time_s=self._clock.time(), step=step, metrics=metrics, groups=groups)

    def _requests(self) -> list[RolloutRequest]:
        settings, rollout = self.job.evaluation, self.job.rollout
        sampling = Sampling(
            max_new_tokens=rollout.max_new_tokens,
            temperature=settings.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
        )
        return [
            RolloutRequest(
                request_id=SEED_OFFSET + number,
                prompt=prompt,
                num_completions=settings.completions_per_prompt,
                sampling=sampling,
                seed=request_seed(self.job.seed, SEED_OFFSET + number),
            )
            for number, prompt in enumerate(self.prompts)
        ]

    async def _answer(self, worker_id: str, requests: list[RolloutRequest]) -> list[RolloutGroup]:
        if not requests:
            return []
        where = {"role": "rollout worker", "worker_id": worker_id, "activity": "answering evaluation prompts"}
        stream = self.roles.rollout_workers[worker_id].run(requests)
        groups = [g async for message in each_within(self.job.limits.generate_s, stream, **where) for g in message]
        groups = [replace(group, texts=tuple(self._decode(group.completions()))) for group in groups]
        for name, server in list(self.roles.reward_servers.items())[:1]:
            where = {"role": "reward server", "worker_id": name, "activity": "scoring evaluation completions"}
            groups = list(await within(self.job.limits.score_s, server.score(groups), **where))
        return groups
