"""Roles for tests of a driver: the real rollout worker on the scripted engine, a reward server and a learner by hand.

They keep the protocols of `rlhf_cluster.roles` and need no model, no process and no device.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rlhf_cluster.errors import ConfigError, RoleDied, WeightsUnavailable
from rlhf_cluster.records import Batch, LogitProbe, RolloutGroup, StepReport, WeightHandle, WorkerStatus
from rlhf_cluster.rewards.sample import Outcome
from rlhf_cluster.rewards.server import with_rewards
from rlhf_cluster.rollout.engines.scripted import ScriptedEngine
from rlhf_cluster.rollout.worker import RolloutWorker
from rlhf_cluster.runtime.spec import RoleSpec
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

    def __init__(self, *, worker_id: str = "learner-0", transport: MemoryTransport | None = None) -> None:
        self.worker_id = worker_id
        self.version = 0
        self.calls: list[str] = []
        self.batches: list[Batch] = []
        self.heads: list[tuple[int, int]] = []
        """Step and number of groups of each call of `accumulate`."""
        self._transport = transport or MemoryTransport()
        self._published: WeightHandle | None = None

    async def rendezvous(self) -> str:
        raise ConfigError("a fake learner is a group of one rank")

    async def start(self, meeting_point: str | None) -> None:
        self.calls.append("start")

    async def accumulate(self, algorithm: Any, groups: Sequence[RolloutGroup], *, step: int) -> None:
        self.heads.append((step, len(groups)))

    async def update(self, algorithm: Any, batch: Batch) -> StepReport:
        self.calls.append("update")
        self.batches.append(batch)
        self.version += 1
        return StepReport(step=batch.step, version=self.version, metrics={"learner/loss": float(self.version)})

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """Every token is worth half of what its group's first reward is; none without rewards."""
        self.calls.append("score")
        worth = [0.0 if group.rewards is None else float(group.rewards[0]) / 2 for group in groups]
        return tuple(
            replace(group, values=np.full(group.num_tokens, value, np.float32))
            for group, value in zip(groups, worth, strict=True)
        )

    async def assess(self, algorithm: Any, groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
        """The loss is the version."""
        self.calls.append("assess")
        return {"learner/loss": float(self.version)}

    async def publish(self) -> WeightHandle:
        """A true manifest with digests; the probe is empty, which the scripted engine passes by its digests."""
        import torch

        from rlhf_cluster.weights.flat import flatten

        self.calls.append("publish")
        tensors = [("weight", torch.full((4,), float(self.version)))]
        manifest, buffer = flatten(tensors, version=self.version, dtype=torch.float32)
        probe = LogitProbe(token_ids=np.zeros(1, np.int32), logprobs=np.zeros(0, np.float32), tolerance=1e-3)
        location = self._transport.publish(manifest, buffer)
        self._published = WeightHandle(manifest=manifest, location=location, probe=probe)
        return self._published

    async def publish_full(self) -> WeightHandle:
        """The version last published. Raises `WeightsUnavailable` before the first."""
        self.calls.append("publish_full")
        if self._published is None:
            raise WeightsUnavailable("no weight version was published yet: call publish first")
        return self._published

    async def save(self, path: Path, *, with_state: bool) -> None:
        self.calls.append("save")
        (path / "version").write_text(str(self.version))

    async def load(self, path: Path) -> None:
        self.calls.append("load")
        self.version = int((path / "version").read_text())

    async def status(self) -> WorkerStatus:
        return WorkerStatus(role="learner", worker_id=self.worker_id, state="idle", activity="", version=self.version)

    async def close(self) -> None:
        self.calls.append("close")


class GivenRuntime:
    """Implements `runtime.base.Runtime` over roles that a test has made; what else is wanted, `replace` makes."""

    one_process = False

    def __init__(self, roles: Mapping[str, Any], replace: Callable[[RoleSpec], Any] | None = None) -> None:
        self.roles = dict(roles)
        """By worker id, those that `replace` made included."""
        self._replace = replace

    async def open(self, spec: RoleSpec) -> Any:
        if spec.worker_id not in self.roles:
            if self._replace is None:
                raise RoleDied(f"{spec.worker_id} was not given", role=spec.role, worker_id=spec.worker_id)
            self.roles[spec.worker_id] = self._replace(spec)
        return self.roles[spec.worker_id]

    async def placed(self, handle: Any) -> None:
        pass

    async def pending_reason(self, spec: RoleSpec) -> str:
        return ""

    def starting(self) -> AbstractAsyncContextManager[Any]:
        return nullcontext()

    async def close(self) -> None:
        pass


def fake_roles(
    *workers: Any,
    reward: FakeRewardServer | None = None,
    rank: FakeLearnerRank | None = None,
    reference_scorers: Mapping[str, Any] | None = None,
    replace: Callable[[RoleSpec], Any] | None = None,
) -> GivenRuntime:
    """A runtime that holds these roles; without `workers`, one scripted worker."""
    workers = workers or (scripted_worker(),)
    reward = reward or FakeRewardServer()
    given = {worker.worker_id: worker for worker in workers}
    given |= {reward.worker_id: reward, **(reference_scorers or {}), "learner-0": rank or FakeLearnerRank()}
    return GivenRuntime(given, replace)


@dataclass(frozen=True, slots=True, kw_only=True)
class BareSpecs:
    """Implements `runtime.roles.Specs` for roles that are given or simulated: names and hardly anything else."""

    num_ranks: int = 1
    full_every: int = 1
    epoch: int = 1
    transport: MemoryTransport = field(default_factory=MemoryTransport)

    def rollout(self, number: int) -> RoleSpec:
        return self._spec("rollout worker", f"rollout-{number}", transport=self.transport)

    def reward(self, number: int) -> RoleSpec:
        return self._spec("reward server", f"reward-{number}")

    def reference(self, number: int) -> RoleSpec:
        return self._spec("reference scorer", f"reference-{number}")

    def learner(self, incarnation: int) -> list[RoleSpec]:
        again = f".{incarnation}" if incarnation else ""
        told = SimpleNamespace(full_every=self.full_every, author=(self.epoch, incarnation))
        return [
            self._spec("learner", f"learner-{rank}{again}", rank=rank, spec=told, transport=self.transport)
            for rank in range(self.num_ranks)
        ]

    def _spec(self, role: str, worker_id: str, **arguments: Any) -> RoleSpec:
        return RoleSpec(role=role, worker_id=worker_id, factory="", arguments=arguments, cpus=0, gpus=0)
