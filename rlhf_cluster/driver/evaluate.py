"""Held-out evaluation: the rollout workers answer prompts that are never trained on, the reward servers score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.figures import reward_figures
from rlhf_cluster.driver.fleet import Fleet
from rlhf_cluster.driver.resending import DEADLY
from rlhf_cluster.driver.feed import Feed
from rlhf_cluster.driver.rollouts import Decode, request_seed
from rlhf_cluster.driver.scoring import DeadlyGroup, Scoring
from rlhf_cluster.errors import RoleDied
from rlhf_cluster.flow.suspects import Suspects
from rlhf_cluster.records import Prompt, RolloutGroup, RolloutRequest, Sampling
from rlhf_cluster.records.events import Evaluated

SEED_OFFSET = 1 << 40
"""Evaluation requests are numbered from here, far from those of training, so they share no random numbers."""


class Evaluator:
    """Draws with the same seeds every time, so two evaluations differ only by the policy."""

    def __init__(
        self,
        job: JobConfig,
        fleet: Fleet,
        scoring: Scoring,
        *,
        prompts: Sequence[Prompt],
        decode: Decode,
        clock: Clock,
    ) -> None:
        self.job = job
        self.prompts = tuple(prompts[: job.evaluation.num_prompts])
        self._fleet = fleet
        self._scoring = scoring
        self._decode = decode
        self._clock = clock

    async def evaluate(self, *, step: int, feed: Feed | None = None) -> Evaluated:
        """`feed` goes on beside it, and its bounds hold for this wait too."""
        answers = await _Exam(self._fleet, self._requests(), max_deaths=self.job.recovery.max_deaths).answers(feed)
        groups = [replace(group, texts=tuple(self._decode(group.completions()))) for group in answers]
        try:
            scored = await self._scoring.rewarded(groups)
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


class _Exam:
    """One evaluation's requests, dealt to all workers evenly; an `Owner` of the fleet."""

    def __init__(self, fleet: Fleet, requests: Sequence[RolloutRequest], *, max_deaths: int) -> None:
        self._fleet = fleet
        self._suspects = Suspects(max_deaths=max_deaths)
        self._poison: RoleDied | None = None
        self._unsent = list(requests)
        self._num_requests = len(requests)
        self._groups: dict[int, RolloutGroup] = {}

    async def answers(self, feed: Feed | None) -> list[RolloutGroup]:
        """In the order of the requests."""
        while len(self._groups) < self._num_requests:
            if feed is not None:
                feed.raise_if_hopeless()
            if self._poison is not None:
                raise self._poison
            self._send()
            await self._fleet.news()
        return [self._groups[request_id] for request_id in sorted(self._groups)]

    def arrived(self, worker_id: str, groups: Sequence[RolloutGroup]) -> None:
        for group in groups:
            self._groups.setdefault(group.request_id, group)
            self._suspects.finished(group.request_id)
        self._fleet.changed.set()

    def returned(self, worker_id: str, requests: Sequence[RolloutRequest], error: Exception | None) -> None:
        open_ones = {request.request_id: request for request in requests if request.request_id not in self._groups}
        self._unsent += open_ones.values()
        if isinstance(error, DEADLY):
            for request_id, evidence in self._suspects.worker_lost(list(open_ones), str(error)).quarantined:
                prompt_id = open_ones[request_id].prompt.prompt_id
                self._poison = RoleDied(f"the evaluation prompt {prompt_id} kills workers: {'; '.join(evidence)}")
        self._fleet.changed.set()

    @property
    def _num_out(self) -> int:
        return self._num_requests - len(self._groups) - len(self._unsent)

    def hedge(self, worker_id: str, requests: Sequence[RolloutRequest]) -> None:
        """An evaluation can wait until the worker goes on or is taken for hung."""

    def _send(self) -> None:
        """Once all workers serve the newest version, which is the one to evaluate; in an asynchronous job some may
        still be adopting it."""
        workers = self._fleet.serving()
        if workers and self._unsent and all(map(self._fleet.holds_newest, workers)):
            ready = [each for each in self._unsent if not self._suspects.is_isolated(each.request_id)]
            if not ready and not self._num_out:
                # Those that workers died of go out one by one, so that it shows which it is.
                ready = self._unsent[:1]
            sent = {each.request_id for each in ready}
            self._unsent = [each for each in self._unsent if each.request_id not in sent]
            for number, worker_id in enumerate(workers):
                if share := ready[number :: len(workers)]:
                    self._fleet.send(worker_id, share, self)
