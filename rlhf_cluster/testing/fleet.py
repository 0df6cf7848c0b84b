"""A whole fleet in one event loop: a runtime whose roles are simulated, and the two that only fill in a column.

clock = VirtualClock()
runtime = SimulatedRuntime(Pace(seconds_of=lognormal(1.0, mean_s=60.0, cap_s=600.0)), wrap=with_faults(plan))
virtual_time.run(drive(job, runtime, clock), clock=clock)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.runtime.spec import RoleSpec
from rlhf_cluster.testing.simulated_learner import SimulatedRank
from rlhf_cluster.testing.simulated_pace import Pace, lognormal
from rlhf_cluster.testing.simulated_role import SimulatedRole
from rlhf_cluster.testing.simulated_worker import SimulatedWorker

__all__ = [
    "Pace",
    "SimulatedRank",
    "SimulatedRewardServer",
    "SimulatedRole",
    "SimulatedRuntime",
    "SimulatedScorer",
    "SimulatedWorker",
    "lognormal",
]


class SimulatedRewardServer(SimulatedRole):
    """Rewards 0, 1, 2, ... to the completions of a group, so that none is without variance."""

    def __init__(self, worker_id: str = "reward-0", *, score_s: float = 0.0, start_s: float = 0.0) -> None:
        super().__init__("reward server", worker_id, start_s=start_s)
        self.score_s = score_s

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        await self._answer()
        await self._work(self.score_s, f"scoring {len(groups)} groups")
        self.tokens_total += sum(group.num_tokens for group in groups)
        return tuple(map(_with_rewards, groups))


class SimulatedScorer(SimulatedRole):
    """The reference is the policy that generated."""

    def __init__(self, worker_id: str = "reference-0", *, score_s: float = 0.0, start_s: float = 0.0) -> None:
        super().__init__("reference scorer", worker_id, start_s=start_s)
        self.score_s = score_s

    async def logprobs(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        await self._answer()
        await self._work(self.score_s, f"scoring {len(groups)} groups")
        self.tokens_total += sum(group.num_tokens for group in groups)
        return tuple(replace(group, reference_logprobs=group.logprobs) for group in groups)


class SimulatedRuntime:
    """Implements `runtime.roles.Runtime`: opens a simulated role for every specification, whatever class that names."""

    one_process = False

    def __init__(self, pace: Pace | None = None, *, wrap: Callable[[SimulatedRole], Any] = lambda role: role) -> None:
        """`wrap` may put something around each role, such as `faulty_roles.with_faults`; its answer is the handle."""
        self.pace = pace or Pace()
        self.opened: list[SimulatedRole] = []
        """Every role ever opened, in that order."""
        self._wrap = wrap

    async def open(self, spec: RoleSpec) -> Any:
        role = _BUILD[spec.role](spec.worker_id, self.pace, spec.arguments)
        self.opened.append(role)
        return self._wrap(role)

    async def placed(self, handle: Any) -> None:
        await asyncio.sleep(self.pace.place_s)

    async def pending_reason(self, spec: RoleSpec) -> str:
        return f"every machine takes {self.pace.place_s:g} s"

    def starting(self) -> AbstractAsyncContextManager[Any]:
        return nullcontext()

    async def close(self) -> None:
        for role in self.opened:
            role.kill("was ended with its runtime")

    def newest(self, role: str) -> SimulatedRole:
        """The one of this role that was opened last."""
        return next(opened for opened in reversed(self.opened) if opened.role == role)


def _build_worker(worker_id: str, pace: Pace, arguments: Mapping[str, Any]) -> SimulatedWorker:
    return SimulatedWorker(
        worker_id,
        seconds_of=pace.seconds_of,
        slots=pace.slots,
        tokens_per_completion=pace.tokens_per_completion,
        adopt_s=pace.adopt_s,
        start_s=pace.worker_start_s,
        transport=arguments.get("transport"),
    )


def _build_rank(worker_id: str, pace: Pace, arguments: Mapping[str, Any]) -> SimulatedRank:
    spec = arguments["spec"]
    return SimulatedRank(
        worker_id,
        rank=arguments["rank"],
        update_s=pace.update_s,
        publish_s=pace.publish_s,
        save_s=pace.save_s,
        start_s=pace.learner_start_s,
        full_every=spec.full_every,
        author=spec.author,
        transport=arguments.get("transport"),
    )


def _build_reward_server(worker_id: str, pace: Pace, arguments: Mapping[str, Any]) -> SimulatedRewardServer:
    return SimulatedRewardServer(worker_id, score_s=pace.score_s, start_s=pace.worker_start_s)


def _build_scorer(worker_id: str, pace: Pace, arguments: Mapping[str, Any]) -> SimulatedScorer:
    return SimulatedScorer(worker_id, score_s=pace.score_s, start_s=pace.worker_start_s)


_BUILD: Mapping[str, Callable[[str, Pace, Mapping[str, Any]], SimulatedRole]] = {
    "rollout worker": _build_worker,
    "reward server": _build_reward_server,
    "reference scorer": _build_scorer,
    "learner": _build_rank,
}


def _with_rewards(group: RolloutGroup) -> RolloutGroup:
    rewards_G = _ranks(group.num_completions)
    return replace(group, rewards=rewards_G, breakdown={"fake": rewards_G})


@lru_cache(maxsize=64)
def _ranks(num_completions: int) -> np.ndarray:
    ranks_G = np.arange(num_completions, dtype=np.float32)
    ranks_G.setflags(write=False)
    return ranks_G
