"""The figures of a step: sums over a batch, durations, and what the roles say of themselves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.errors import RoleError
from rlhf_cluster.functional.statistics import repetition_of_each
from rlhf_cluster.functional.value import explained_variance
from rlhf_cluster.records import Batch, RolloutGroup, WorkerStatus

if TYPE_CHECKING:
    from rlhf_cluster.driver.feed import Tally
    from rlhf_cluster.runtime.roles import Roles

Result = TypeVar("Result")

MAX_REPETITION_TOKENS = 1 << 16
"""Repetition is counted in so many tokens of a batch."""


def batch_figures(batch: Batch) -> dict[str, float]:
    """By metric name: rewards and their parts, lengths, staleness, what the critic knew."""
    lengths = np.concatenate([group.lengths for group in batch.groups])
    ages = [batch.step - group.oldest_version for group in batch.groups if len(group.versions)]
    if not ages:
        # Recorded: nobody sampled them, and what their rewards say is which of them people preferred.
        return {"driver/batch_tokens": float(batch.num_tokens), "data/completion_length_mean": float(lengths.mean())}
    figures = {
        "driver/staleness_max": float(max(ages)),
        "driver/staleness_mean": float(np.mean(ages)),
        "driver/batch_tokens": float(batch.num_tokens),
        "rollout/completion_length_mean": float(lengths.mean()),
        "rollout/truncated_rate": float(np.mean([r == "length" for g in batch.groups for r in g.finish_reasons])),
        "rollout/repetition": _repetition(batch.groups),
    }
    return figures | reward_figures(batch.groups, prefix="reward") | critic_figures(batch.groups)


def _repetition(groups: Sequence[RolloutGroup]) -> float:
    """Mean over the completions of the first groups: a million tokens would take a second of the driver's time."""
    tokens_before = np.cumsum([0] + [group.num_tokens for group in groups[:-1]])
    read = [group for group, before in zip(groups, tokens_before, strict=True) if before < MAX_REPETITION_TOKENS]
    token_ids, lengths = (np.concatenate([getattr(g, name) for g in read]) for name in ("token_ids", "lengths"))
    return float(repetition_of_each(token_ids, lengths).mean())


def tally_figures(tally: Tally) -> dict[str, float]:
    """What was dropped or invalid on the way to a batch, and what took longest."""
    return {
        "driver/groups_dropped": float(tally.num_dropped),
        "driver/longest_group_s": tally.longest_s,
        "driver/invalid_rate": tally.num_invalid / max(tally.num_completions, 1),
    }


def reward_figures(groups: Sequence[RolloutGroup], *, prefix: str) -> dict[str, float]:
    """`<prefix>/mean`, `<prefix>/std` over completions and `<prefix>/<name>` for each part.

    Invalid completions do not count; a figure of which nothing valid is left is not there.
    """
    scored = [group for group in groups if group.rewards is not None]
    if not scored:
        return {}
    rewards = _valid([group.rewards for group in scored if group.rewards is not None])
    parts = {name: _valid([group.breakdown[name] for group in scored]) for name in scored[0].breakdown}
    figures = {f"{prefix}/{name}": float(values.mean()) for name, values in parts.items() if len(values)}
    if len(rewards):
        figures |= {f"{prefix}/mean": float(rewards.mean()), f"{prefix}/std": float(rewards.std())}
    return figures


def critic_figures(groups: Sequence[RolloutGroup]) -> dict[str, float]:
    """`learner/explained_variance` of the trained tokens' returns by what the critic said before it learned from them.

    Not there without a critic, nor where the returns do not vary.
    """
    pairs = [
        (g.trained(g.values), g.trained(g.returns)) for g in groups if g.values is not None and g.returns is not None
    ]
    if not pairs:
        return {}
    values_N, returns_N = (np.concatenate(columns).astype(np.float64) for columns in zip(*pairs, strict=True))
    share = float(explained_variance(values_N, returns_N)) if len(returns_N) else math.nan
    return {} if math.isnan(share) else {"learner/explained_variance": share}


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


class Statuses:
    """What every role said of itself last: for the figures of a step, and for `rlhf status`."""

    def __init__(self, roles: Roles, *, bound_s: float) -> None:
        self.newest: dict[str, WorkerStatus] = {}
        """By worker; one that has left is forgotten at the next `ask`."""
        self._roles = roles
        self._bound_s = bound_s

    async def ask(self) -> dict[str, list[WorkerStatus]]:
        """By the name of the role. A replica that does not answer in time is left out: supervision deals with it."""
        members: dict[str, Mapping[str, Any]] = {
            name: {**pool.handles(), **pool.draining()} for name, pool in self._roles.pools.items()
        }
        members["learner"] = self._roles.learner.members
        answers = {
            name: await asyncio.gather(*(self._one(*member) for member in handles.items()))
            for name, handles in members.items()
        }
        told = {name: [answer for answer in of_role if answer is not None] for name, of_role in answers.items()}
        self.newest = {status.worker_id: status for of_role in told.values() for status in of_role}
        return told

    async def _one(self, worker_id: str, handle: Any) -> WorkerStatus | None:
        try:
            async with asyncio.timeout(self._bound_s):
                # A rank of another incarnation still calls itself by its number alone.
                return replace(await handle.status(), worker_id=worker_id)
        except (TimeoutError, RoleError):
            return None


class RoleFigures:
    """What the roles' own counters say since the last step: tokens a second while busy, idleness and memory."""

    def __init__(self, statuses: Statuses, clock: Clock) -> None:
        self._statuses = statuses
        self._clock = clock
        self._before: dict[str, WorkerStatus] = {}
        self._asked_s = clock.monotonic()

    async def since_last(self) -> dict[str, float]:
        """`<role>/rss_gib` of the largest replica, `<role>/idle_share` on average over them, and for rollout and
        reference `<role>/tokens_per_s` of all together."""
        told = await self._statuses.ask()
        now_s = self._clock.monotonic()
        elapsed_s, self._asked_s = now_s - self._asked_s, now_s
        figures = {}
        for role, answers in told.items():
            if not answers:
                continue
            figures[f"{role}/rss_gib"] = max(answer.rss_bytes for answer in answers) / 2**30
            if elapsed_s > 0:
                busy_s = [_since(self._before.get(answer.worker_id), answer, "busy_s") for answer in answers]
                figures[f"{role}/idle_share"] = float(np.clip(1 - np.mean(busy_s) / elapsed_s, 0, 1))
            if role in ("rollout", "reference"):
                figures[f"{role}/tokens_per_s"] = sum(_rate(self._before.get(a.worker_id), a) for a in answers)
        self._before = {answer.worker_id: answer for answers in told.values() for answer in answers}
        return figures


def _since(before: WorkerStatus | None, now: WorkerStatus, counter: str) -> float:
    return getattr(now, counter) - (getattr(before, counter) if before else 0)


def _rate(before: WorkerStatus | None, now: WorkerStatus) -> float:
    busy_s = _since(before, now, "busy_s")
    return _since(before, now, "tokens_total") / busy_s if busy_s > 0 else 0.0
