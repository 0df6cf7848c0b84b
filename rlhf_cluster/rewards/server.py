"""The reward server: all rewards of a job on the completions of a group, at the same time, summed by weight.

Functions run in a pool of processes, models in a thread, remote rewards on the event loop, which is never blocked.
A completion whose reward failed has NaN as its reward and an `Invalid` that says why; nothing is ever put in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import psutil

from rlhf_cluster.errors import RoleError
from rlhf_cluster.records import Invalid, RolloutGroup, WorkerStatus
from rlhf_cluster.rewards.http import RemoteReward
from rlhf_cluster.rewards.model import RewardModel
from rlhf_cluster.rewards.pool import FunctionPool
from rlhf_cluster.rewards.sample import Failure, Outcome, RewardSample, ScoreSamples
from rlhf_cluster.rewards.settings import (
    FunctionReward,
    HttpReward,
    ModelReward,
    RewardServerSettings,
    check_rewards,
)

Reward = FunctionReward | ModelReward | HttpReward


class RewardServer:
    """Implements `roles.RewardServer`. `start` loads everything; the first `score` does so when nobody has."""

    def __init__(
        self,
        rewards: Sequence[Reward],
        settings: RewardServerSettings | None = None,
        *,
        worker_id: str = "reward-0",
    ) -> None:
        check_rewards(rewards)
        self._weights = {reward.label: reward.weight for reward in rewards}
        self._rewards = tuple(rewards)
        self._settings = settings or RewardServerSettings()
        self._worker_id = worker_id
        self._members: list[FunctionPool | RewardModel | RemoteReward] = []
        self._score_samples: dict[str, ScoreSamples] = {}
        self._start: asyncio.Task[None] | None = None
        self._state = "starting"
        self._num_in_flight = 0
        self._tokens_total = 0
        self._busy_s = 0.0
        self._busy_since_s = 0.0

    async def start(self) -> None:
        """Start processes, load functions and models. Raises `ConfigError` or `ModelError` for what does not load."""
        if self._state == "closed":
            raise RoleError("the reward server is closed", role="reward server", worker_id=self._worker_id)
        if self._start is None:
            self._start = asyncio.create_task(self._start_members())
        await asyncio.shield(self._start)

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """The groups with `rewards`, `breakdown` and `invalid` filled; reads `texts`. Starts the server if need be."""
        await self.start()
        self._note_in_flight(+len(groups))
        try:
            return tuple(await asyncio.gather(*map(self._score_group, groups)))
        finally:
            self._note_in_flight(-len(groups))

    async def status(self) -> WorkerStatus:
        """Counters, and the memory of the server with its processes."""
        started = self._state == "open"
        state = ("busy" if self._num_in_flight else "idle") if started else self._state
        running_s = time.monotonic() - self._busy_since_s if self._num_in_flight else 0.0
        return WorkerStatus(
            role="reward server",
            worker_id=self._worker_id,
            state=state,
            activity=f"scoring {self._num_in_flight} groups" if state == "busy" else state,
            num_in_flight=self._num_in_flight,
            tokens_total=self._tokens_total,
            busy_s=self._busy_s + running_s,
            rss_bytes=_rss_bytes(),
            process_id=os.getpid(),
        )

    async def close(self) -> None:
        """End processes, threads and connections; what is being scored is lost."""
        self._state = "closed"
        if self._start is not None:
            self._start.cancel()
        members, self._members = self._members, []
        await asyncio.gather(*(member.close() for member in members))

    async def _start_members(self) -> None:
        functions = [reward for reward in self._rewards if isinstance(reward, FunctionReward)]
        if functions:
            self._add_functions(functions)
        for reward in self._rewards:
            if isinstance(reward, ModelReward):
                self._add(reward.label, RewardModel(reward))
            elif isinstance(reward, HttpReward):
                self._add(reward.label, RemoteReward(reward))
        for member in self._members:
            if not isinstance(member, RemoteReward):
                await member.start()
        self._state = "open"

    def _add_functions(self, functions: Sequence[FunctionReward]) -> None:
        pool = FunctionPool(
            functions,
            num_processes=self._settings.num_processes,
            max_process_memory_mib=self._settings.max_process_memory_mib,
        )
        self._members.append(pool)
        for reward in functions:
            self._score_samples[reward.label] = pool.scorer(reward.label)

    def _add(self, label: str, member: RewardModel | RemoteReward) -> None:
        self._members.append(member)
        self._score_samples[label] = member.score

    async def _score_group(self, group: RolloutGroup) -> RolloutGroup:
        samples = samples_of(group)
        outcomes = await asyncio.gather(*(score(samples) for score in self._score_samples.values()))
        self._tokens_total += group.num_tokens
        return with_rewards(group, dict(zip(self._score_samples, outcomes, strict=True)), weights=self._weights)

    def _note_in_flight(self, change: int) -> None:
        now_s = time.monotonic()
        if self._num_in_flight:
            self._busy_s += now_s - self._busy_since_s
        self._busy_since_s = now_s
        self._num_in_flight += change


def samples_of(group: RolloutGroup) -> list[RewardSample]:
    """One sample a completion. The group's `texts` must be there."""
    assert len(group.texts) == group.num_completions, "decode the completions before they are scored"
    prompt = group.prompt
    return [
        RewardSample(
            prompt=prompt.text,
            completion=text,
            finish_reason=reason,
            num_tokens=len(token_ids),
            item=prompt.item,
            token_ids=np.concatenate([prompt.token_ids, token_ids]),
        )
        for text, reason, token_ids in zip(group.texts, group.finish_reasons, group.completions(), strict=True)
    ]


def with_rewards(
    group: RolloutGroup, outcomes: Mapping[str, Sequence[Outcome]], *, weights: Mapping[str, float]
) -> RolloutGroup:
    """The group with the weighted sum of its outcomes; `outcomes` has G of them under each reward's name.

    A failure of a reward of weight 0 shows as NaN in the breakdown and nowhere else.
    """
    breakdown = {name: _numbers(outcomes_G) for name, outcomes_G in outcomes.items()}
    invalid = [*group.invalid]
    for name, outcomes_G in outcomes.items():
        if weights[name]:
            invalid += _invalid(name, outcomes_G)
    rewards_G = np.zeros(group.num_completions, dtype=np.float32)
    for name, numbers_G in breakdown.items():
        if weights[name]:
            rewards_G += np.float32(weights[name]) * numbers_G
    rewards_G[[failure.completion for failure in invalid]] = np.nan
    return replace(group, rewards=rewards_G, breakdown=breakdown, invalid=tuple(invalid))


def _numbers(outcomes_G: Sequence[Outcome]) -> np.ndarray:
    return np.array([np.nan if isinstance(outcome, Failure) else outcome for outcome in outcomes_G], dtype=np.float32)


def _invalid(name: str, outcomes_G: Sequence[Outcome]) -> list[Invalid]:
    return [
        Invalid(completion=i, source=f"reward:{name}", kind=outcome.kind, message=outcome.message)
        for i, outcome in enumerate(outcomes_G)
        if isinstance(outcome, Failure)
    ]


def _rss_bytes() -> int:
    """Of this process and the ones it started; those that end meanwhile do not count."""
    total = psutil.Process().memory_info().rss
    for child in multiprocessing.active_children():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += psutil.Process(child.pid).memory_info().rss
    return total
