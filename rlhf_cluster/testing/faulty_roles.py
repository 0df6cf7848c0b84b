"""Handles of simulated roles whose calls meet the faults of a plan; everything else passes through."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.errors import FingerprintMismatch
from rlhf_cluster.records import (
    Adopted,
    Batch,
    Invalid,
    RolloutGroup,
    RolloutRequest,
    StepReport,
    WeightHandle,
)
from rlhf_cluster.testing.faults import (
    GARBAGE,
    LEARNER_KINDS,
    REFERENCE_KINDS,
    REWARD_KINDS,
    WORKER_KINDS,
    Fault,
    FaultPlan,
)
from rlhf_cluster.testing.fleet import SimulatedRewardServer, SimulatedScorer
from rlhf_cluster.testing.simulated_learner import SimulatedRank
from rlhf_cluster.testing.simulated_role import SimulatedRole
from rlhf_cluster.testing.simulated_worker import SimulatedWorker

FAR = 1_000
"""How far in the future a version is that no learner has made."""


def with_faults(plan: FaultPlan) -> Callable[[SimulatedRole], Any]:
    """For `SimulatedRuntime(wrap=...)`: makes the handle of a role, whose calls meet the faults of `plan`."""

    def wrap(role: SimulatedRole) -> Any:
        if isinstance(role, SimulatedWorker):
            return FaultyWorker(role, plan)
        if isinstance(role, SimulatedRank):
            return FaultyRank(role, plan)
        assert isinstance(role, SimulatedRewardServer | SimulatedScorer), f"no faults are known for a {role.role}"
        return FaultyServer(role, plan)

    return wrap


class FaultyRole:
    def __init__(self, role: SimulatedRole, plan: FaultPlan) -> None:
        self._role = role
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._role, name)

    def _meet(self, *possible: str, within_s: float) -> Fault | None:
        """Draw what this call meets. What befalls the role as a whole is on its way when this returns."""
        fault = self._plan.draw(self._role.worker_id, possible=possible)
        if fault and (fault.kind.endswith(("die", "hang")) or fault.kind in ("stall", "slow")):
            self._plan.strike(self._role, fault.kind, after_s=fault.share * within_s)
        return fault


class FaultyWorker(FaultyRole):
    def __init__(self, worker: SimulatedWorker, plan: FaultPlan) -> None:
        super().__init__(worker, plan)
        self._worker = worker

    async def start(self) -> None:
        self._meet("die", "hang", within_s=self._worker.start_s)
        await self._worker.start()

    async def run(self, requests: Sequence[RolloutRequest]) -> AsyncGenerator[tuple[RolloutGroup, ...]]:
        seconds = [self._worker.seconds_of(request) for request in requests]
        possible = [kind for kind in WORKER_KINDS if kind != "refuse"]
        fault = self._meet(*possible, within_s=max(seconds, default=0.0))
        for request, request_s in zip(requests, seconds, strict=True):
            if request.prompt.prompt_id in self._plan.poison:
                self._plan.strike(self._worker, "poison", after_s=request_s / 2)
        spoil = fault.kind if fault and fault.kind in GARBAGE else None
        async with aclosing(self._worker.run(requests)) as stream:
            async for groups in stream:
                if spoil and groups[0].num_tokens:
                    groups = (_garbage(groups[0], spoil), *groups[1:])
                    self._plan.fired[spoil] += 1
                    spoil = None
                yield groups

    async def adopt(self, handle: WeightHandle) -> Adopted:
        fault = self._meet("die", "hang", "refuse", within_s=self._worker.adopt_s)
        if fault is None or fault.kind != "refuse":
            return await self._worker.adopt(handle)
        self._plan.fired["refuse"] += 1
        error = FingerprintMismatch(f"weights version {handle.version}: the bytes that arrived are not the published")
        self._worker.refuse(str(error))
        raise error


class FaultyServer(FaultyRole):
    """A reward server or a reference scorer."""

    def __init__(self, server: SimulatedRewardServer | SimulatedScorer, plan: FaultPlan) -> None:
        super().__init__(server, plan)
        self._server: Any = server

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        fault = self._meet(*REWARD_KINDS, within_s=self._server.score_s)
        scored = await self._server.score(groups)
        if fault is None or fault.kind != "reward_invalid":
            return scored
        self._plan.fired["reward_invalid"] += 1
        return tuple(map(_without_reward, scored))

    async def logprobs(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        self._meet(*REFERENCE_KINDS, within_s=self._server.score_s)
        return await self._server.logprobs(groups)


class FaultyRank(FaultyRole):
    def __init__(self, rank: SimulatedRank, plan: FaultPlan) -> None:
        super().__init__(rank, plan)
        self._rank = rank

    async def update(self, algorithm: Any, batch: Batch) -> StepReport:
        self._meet(*LEARNER_KINDS, within_s=self._rank.update_s)
        return await self._rank.update(algorithm, batch)

    async def publish(self) -> WeightHandle | None:
        self._meet(*LEARNER_KINDS, within_s=self._rank.publish_s)
        return await self._rank.publish()

    async def save(self, path: Path, *, with_state: bool) -> None:
        self._meet(*LEARNER_KINDS, within_s=self._rank.save_s)
        await self._rank.save(path, with_state=with_state)


def _garbage(group: RolloutGroup, kind: str) -> RolloutGroup:
    if kind == "garbage_count":
        keep_G = np.arange(group.num_completions) > 0
        return group.select(keep_G)
    if kind == "garbage_logprobs":
        return replace(group, logprobs=np.full_like(group.logprobs, np.nan))
    if kind == "garbage_id":
        return replace(group, request_id=-1 - group.request_id)
    return replace(group, versions=group.versions + FAR)


def _without_reward(group: RolloutGroup) -> RolloutGroup:
    nothing_G = np.full(group.num_completions, np.nan, np.float32)
    invalid = tuple(
        Invalid(completion=i, source="reward:fake", kind="unavailable", message="500 Internal Server Error")
        for i in range(group.num_completions)
    )
    return replace(group, rewards=nothing_G, breakdown={"fake": nothing_G}, invalid=invalid)
