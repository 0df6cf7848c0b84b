"""The figures of a step: sums over a batch, durations, and what the roles say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.records import Batch, WorkerStatus
from rlhf_cluster.runtime.bounds import within

if TYPE_CHECKING:
    from rlhf_cluster.driver.rollouts import Tally
    from rlhf_cluster.roles import Role
    from rlhf_cluster.runtime.roles import Roles

Result = TypeVar("Result")


def batch_figures(batch: Batch, tally: Tally) -> dict[str, float]:
    """By metric name: rewards and their parts, lengths, staleness, and what was dropped or invalid on the way."""
    lengths = np.concatenate([group.lengths for group in batch.groups])
    ages = [batch.step - group.oldest_version for group in batch.groups]
    figures = {
        "driver/staleness_max": float(max(ages)),
        "driver/staleness_mean": float(np.mean(ages)),
        "driver/groups_dropped": float(tally.num_dropped),
        "driver/invalid_rate": tally.num_invalid / max(tally.num_completions, 1),
        "rollout/completion_length_mean": float(lengths.mean()),
        "rollout/truncated_rate": float(np.mean([r == "length" for g in batch.groups for r in g.finish_reasons])),
    }
    return figures | reward_figures(batch.groups, prefix="reward")


def reward_figures(groups: tuple, *, prefix: str) -> dict[str, float]:
    """`<prefix>/mean`, `<prefix>/std` over completions and `<prefix>/<name>` for each part.

    Invalid completions do not count; a figure of which nothing valid is left is not there.
    """
    scored = [group for group in groups if group.rewards is not None]
    if not scored:
        return {}
    rewards = _valid([group.rewards for group in scored])
    parts = {name: _valid([group.breakdown[name] for group in scored]) for name in scored[0].breakdown}
    figures = {f"{prefix}/{name}": float(values.mean()) for name, values in parts.items() if len(values)}
    if len(rewards):
        figures |= {f"{prefix}/mean": float(rewards.mean()), f"{prefix}/std": float(rewards.std())}
    return figures


def _valid(columns: list[np.ndarray]) -> np.ndarray:
    values = np.concatenate(columns)
    return values[~np.isnan(values)]


class Stopwatch:
    """Durations by metric name, within one step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._durations: dict[str, float] = {}

    async def time(self, name: str, work: Awaitable[Result]) -> Result:
        started = self._clock.monotonic()
        try:
            return await work
        finally:
            self._durations[name] = self._clock.monotonic() - started

    def figures(self) -> dict[str, float]:
        return dict(self._durations)

    def total(self) -> float:
        return self._clock.monotonic() - self._started


class RoleFigures:
    """What the roles' own counters say since the last step: tokens a second while busy, and memory."""

    def __init__(self, roles: Roles, *, bound_s: float) -> None:
        self._members: dict[str, Mapping[str, Role]] = {
            "rollout": roles.rollout_workers,
            "reward": roles.reward_servers,
            "reference": roles.reference_scorers,
            "learner": {f"learner-{number}": rank for number, rank in enumerate(roles.learner.ranks)},
        }
        self._bound_s = bound_s
        self._before: dict[str, WorkerStatus] = {}

    async def since_last(self) -> dict[str, float]:
        """`<role>/rss_gib` of the largest replica, `rollout/tokens_per_s` and `reference/tokens_per_s` of all."""
        figures = {}
        for role, members in self._members.items():
            if not members:
                continue
            answers = await asyncio.gather(*(self._ask(role, *member) for member in members.items()))
            figures[f"{role}/rss_gib"] = max(answer.rss_bytes for answer in answers) / 2**30
            if role in ("rollout", "reference"):
                rates = [_rate(self._before.get(answer.worker_id), answer) for answer in answers]
                figures[f"{role}/tokens_per_s"] = sum(rates)
            self._before |= {answer.worker_id: answer for answer in answers}
        return figures

    async def _ask(self, role: str, worker_id: str, member: Role) -> WorkerStatus:
        where = {"role": role, "worker_id": worker_id, "activity": "telling its status"}
        return await within(self._bound_s, member.status(), **where)


def _rate(before: WorkerStatus | None, now: WorkerStatus) -> float:
    tokens = now.tokens_total - (before.tokens_total if before else 0)
    busy_s = now.busy_s - (before.busy_s if before else 0.0)
    return tokens / busy_s if busy_s > 0 else 0.0
