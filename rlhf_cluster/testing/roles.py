"""Roles for tests of a driver: the real rollout worker on the scripted engine, a reward server and a learner by hand.

They keep the protocols of `rlhf_cluster.roles` and need no model, no process and no device.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.records import Batch, LogitProbe, RolloutGroup, StepReport, WeightHandle, WorkerStatus
from rlhf_cluster.rewards.sample import Outcome
from rlhf_cluster.rewards.server import with_rewards
from rlhf_cluster.rollout.engines.scripted import ScriptedEngine
from rlhf_cluster.rollout.worker import RolloutWorker
from rlhf_cluster.runtime.roles import Roles
from rlhf_cluster.weights.memory import MemoryTransport

Judge = Callable[[RolloutGroup], Sequence[Outcome]]
"""A number or a `Failure` for each completion of a group."""


def scripted_worker(worker_id: str = "rollout-0", **engine: Any) -> RolloutWorker:
    """A real rollout worker whose engine is scripted; `engine` are settings of `ScriptedEngine`."""
    return RolloutWorker(
        ScriptedEngine.model_validate({"vocab_size": 32, **engine}),
        Path(),
        worker_id=worker_id,
        transport=MemoryTransport(),
    )


def rewards_that_differ(group: RolloutGroup) -> list[Outcome]:
    """0, 1, 2, ...: no group is without variance."""
    return [float(number) for number in range(group.num_completions)]


class FakeRewardServer:
    """Scores by `judge`, one reward called `fake`; counts the groups it saw."""

    def __init__(
        self, judge: Judge = rewards_that_differ, *, worker_id: str = "reward-0", delay_s: float = 0.0
    ) -> None:
        self.judge = judge
        self.worker_id = worker_id
        self.delay_s = delay_s
        self.num_groups = 0

    async def start(self) -> None:
        pass

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        self.num_groups += len(groups)
        return tuple(with_rewards(group, {"fake": self.judge(group)}, weights={"fake": 1.0}) for group in groups)

    async def status(self) -> WorkerStatus:
        return WorkerStatus(role="reward server", worker_id=self.worker_id, state="idle", activity="")

    async def close(self) -> None:
        pass


class FakeLearnerRank:
    """A rank that learns nothing: every update makes a new version of one small tensor, and every call is noted."""

    def __init__(self, *, transport: MemoryTransport | None = None) -> None:
        self.version = 0
        self.calls: list[str] = []
        self.batches: list[Batch] = []
        self._transport = transport or MemoryTransport()

    async def rendezvous(self) -> str:
        raise ConfigError("a fake learner is a group of one rank")

    async def start(self, meeting_point: str | None) -> None:
        self.calls.append("start")

    async def update(self, algorithm: Any, batch: Batch) -> StepReport:
        self.calls.append("update")
        self.batches.append(batch)
        self.version += 1
        return StepReport(step=batch.step, version=self.version, metrics={"learner/loss": float(self.version)})

    async def publish(self) -> WeightHandle:
        """A true manifest with digests; the probe is empty, which the scripted engine passes by its digests."""
        import torch

        from rlhf_cluster.weights.flat import flatten

        self.calls.append("publish")
        tensors = [("weight", torch.full((4,), float(self.version)))]
        manifest, buffer = flatten(tensors, version=self.version, dtype=torch.float32)
        probe = LogitProbe(token_ids=np.zeros(1, np.int32), logprobs=np.zeros(0, np.float32), tolerance=1e-3)
        return WeightHandle(manifest=manifest, location=self._transport.publish(manifest, buffer), probe=probe)

    async def save(self, path: Path, *, with_state: bool) -> None:
        self.calls.append("save")
        (path / "version").write_text(str(self.version))

    async def load(self, path: Path) -> None:
        self.calls.append("load")
        self.version = int((path / "version").read_text())

    async def status(self) -> WorkerStatus:
        return WorkerStatus(role="learner", worker_id="learner-0", state="idle", activity="", version=self.version)

    async def close(self) -> None:
        self.calls.append("close")


def fake_roles(
    *workers: Any,
    reward: FakeRewardServer | None = None,
    rank: FakeLearnerRank | None = None,
    reference_scorers: Mapping[str, Any] | None = None,
) -> Roles:
    """An open set of roles; without `workers`, one scripted worker."""
    workers = workers or (scripted_worker(),)
    reward = reward or FakeRewardServer()
    return Roles(
        rollout_workers={worker.worker_id: worker for worker in workers},
        reward_servers={reward.worker_id: reward},
        reference_scorers=dict(reference_scorers or {}),
        learner=LearnerGroup([rank or FakeLearnerRank()]),  # type: ignore[list-item]
    )
