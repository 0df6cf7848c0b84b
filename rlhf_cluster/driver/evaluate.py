"""Held-out evaluation, of what is never trained on: the rollout workers answer prompts and the reward servers score
the answers; the learner is asked for its loss over recorded examples, or for its scores of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.figures import reward_figures
from rlhf_cluster.driver.sampler import Sampler
from rlhf_cluster.driver.scoring import DeadlyGroup, Scoring
from rlhf_cluster.errors import RoleDied
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.records.events import Evaluated

if TYPE_CHECKING:
    from rlhf_cluster.driver.feed import Feed
    from rlhf_cluster.driver.prompts import JobPrompts
    from rlhf_cluster.driver.replica import LearnerReplica

SEED_OFFSET = 1 << 40
"""Evaluation requests are numbered from here, far from those of training, so they share no random numbers."""

SCORE = "score"
"""The name among a group's rewards of what the reward model that is being trained gives."""

HandOver = Callable[[], Awaitable[Any]]


class Evaluator:
    """Draws with the same seeds every time, so two evaluations differ only by the policy."""

    def __init__(
        self,
        job: JobConfig,
        sampler: Sampler,
        scoring: Scoring,
        learner: LearnerReplica,
        *,
        prompts: JobPrompts,
        clock: Clock,
    ) -> None:
        self.job = job
        self.prompts = prompts.eval[: job.evaluation.num_prompts]
        self.sampler = sampler
        self._held_out = prompts.held_out
        self.scoring = scoring
        self._learner = learner
        self._clock = clock

    @property
    def has_work(self) -> bool:
        return bool(self.prompts or self._held_out)

    async def evaluate(self, *, step: int, hand_over: HandOver | None = None, feed: Feed | None = None) -> Evaluated:
        """`hand_over` gives the workers the newest weights, should they not have them. `feed` goes on beside it, and
        its bounds hold for this wait too."""
        metrics: dict[str, float] = {}
        groups: Sequence[RolloutGroup] = ()
        if self._held_out:
            metrics |= await self._assessed()
        if self.prompts:
            if hand_over is not None:
                await hand_over()
            groups = await self._answered(feed)
            metrics |= _answer_figures(groups)
        return Evaluated(
            time_s=self._clock.time(),
            step=step,
            metrics=metrics,
            groups=tuple(groups),
            fingerprint=self.sampler.fingerprint if groups else "",
            scored=await self._scored(),
        )

    async def _answered(self, feed: Feed | None) -> Sequence[RolloutGroup]:
        settings = self.job.evaluation
        groups = await self.sampler.sample(
            self.prompts,
            num_completions=settings.completions_per_prompt,
            sampling=self.sampler.sampling(temperature=settings.temperature),
            seed_offset=SEED_OFFSET,
            check=feed.raise_if_hopeless if feed else lambda: None,
        )
        groups = await _surviving(self.scoring.rewarded(groups), "reward servers")
        return await _surviving(self.scoring.referenced(groups), "reference scorers") if settings.reference else groups

    async def _scored(self) -> tuple[RolloutGroup, ...]:
        """The held-out preferences, with what a reward model makes of them beside what they are."""
        if self.job.algorithm.model != "reward_model" or not self._held_out:
            return ()
        scored = await self._learner.score(self._held_out)
        return tuple(
            replace(group, breakdown={SCORE: each.rewards})
            for group, each in zip(self._held_out, scored, strict=True)
            if each.rewards is not None
        )

    async def _assessed(self) -> dict[str, float]:
        """`learner/loss` of the held-out examples as `eval/loss`, and so on."""
        algorithm = self.job.algorithm
        if "reference" in algorithm.needs and any(group.reference_logprobs is None for group in self._held_out):
            # Once for the whole job: neither the examples nor the reference change.
            self._held_out = await self.scoring.referenced(self._held_out)
        taught = [group for group in self._held_out if algorithm.drop_reason(group) is None]
        if not taught:
            return {}
        figures = await self._learner.assess(algorithm.credit(taught))
        return {f"eval/{name.removeprefix('learner/')}": value for name, value in figures.items()}


async def _surviving(answer: Awaitable[Sequence[RolloutGroup]], role: str) -> Sequence[RolloutGroup]:
    try:
        return await answer
    except DeadlyGroup as error:
        raise RoleDied(f"the evaluation prompt {error.group.prompt.prompt_id} kills {role}: {error}") from error


def _answer_figures(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    metrics = reward_figures(groups, prefix="eval/reward")
    if "eval/reward/mean" in metrics:
        metrics["eval/reward_mean"] = metrics.pop("eval/reward/mean")
        metrics["eval/reward_std"] = metrics.pop("eval/reward/std")
    metrics["eval/completion_length_mean"] = float(np.concatenate([group.lengths for group in groups]).mean())
    gaps = [g.logprobs - g.reference_logprobs for g in groups if g.reference_logprobs is not None]
    if gaps:
        metrics["eval/kl"] = float(np.concatenate(gaps).sum() / sum(group.num_completions for group in groups))
    return metrics
