"""Held-out evaluation: the rollout workers answer prompts that are never trained on, the reward servers score them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.figures import reward_figures
from rlhf_cluster.driver.rollouts import Rollouts
from rlhf_cluster.driver.sampler import Sampler
from rlhf_cluster.driver.scoring import DeadlyGroup, Scoring
from rlhf_cluster.errors import RoleDied
from rlhf_cluster.records import Prompt
from rlhf_cluster.records.events import Evaluated

SEED_OFFSET = 1 << 40
"""Evaluation requests are numbered from here, far from those of training, so they share no random numbers."""


class Evaluator:
    """Draws with the same seeds every time, so two evaluations differ only by the policy."""

    def __init__(
        self,
        job: JobConfig,
        sampler: Sampler,
        scoring: Scoring,
        *,
        prompts: Sequence[Prompt],
        clock: Clock,
    ) -> None:
        self.job = job
        self.prompts = tuple(prompts[: job.evaluation.num_prompts])
        self.sampler = sampler
        self.scoring = scoring
        self._clock = clock

    async def evaluate(self, *, step: int, rollouts: Rollouts | None = None) -> Evaluated:
        """`rollouts` goes on beside it, and its bounds hold for this wait too."""
        settings = self.job.evaluation
        groups = await self.sampler.sample(
            self.prompts,
            num_completions=settings.completions_per_prompt,
            sampling=self.sampler.sampling(temperature=settings.temperature),
            seed_offset=SEED_OFFSET,
            check=rollouts.raise_if_hopeless if rollouts else lambda: None,
        )
        try:
            scored = await self.scoring.rewarded(groups)
        except DeadlyGroup as error:
            raise RoleDied(
                f"the evaluation prompt {error.group.prompt.prompt_id} kills reward servers: {error}"
            ) from error
        metrics = reward_figures(scored, prefix="eval/reward")
        if "eval/reward/mean" in metrics:
            metrics["eval/reward_mean"] = metrics.pop("eval/reward/mean")
            metrics["eval/reward_std"] = metrics.pop("eval/reward/std")
        metrics["eval/completion_length_mean"] = float(np.concatenate([group.lengths for group in scored]).mean())
        return Evaluated(time_s=self._clock.time(), step=step, metrics=metrics, groups=scored)
