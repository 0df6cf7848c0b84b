"""A learner rank that learns one thing: a running hash of all it was ever trained on, told as its loss.

Two jobs with the same losses were trained on the same batches in the same order. Weights are 16 bytes of that hash, so
that versions, fingerprints, checkpoints and replays are real ones, and cheap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from rlhf_cluster.errors import WeightsUnavailable
from rlhf_cluster.records import (
    Batch,
    LogitProbe,
    RolloutGroup,
    StepReport,
    TensorSpec,
    WeightDelta,
    WeightHandle,
    WeightManifest,
    WorkerStatus,
)
from rlhf_cluster.roles import WeightTransport
from rlhf_cluster.testing.simulated_role import SimulatedRole
from rlhf_cluster.weights.flat import fingerprint
from rlhf_cluster.weights.memory import MemoryTransport

STATE_FILE = "simulated_learner.json"


class SimulatedRank(SimulatedRole):
    """See `learner.group.Rank`. Only rank 0 publishes and saves."""

    def __init__(
        self,
        worker_id: str = "learner-0",
        *,
        rank: int = 0,
        update_s: float = 1.0,
        publish_s: float = 0.0,
        save_s: float = 0.0,
        start_s: float = 0.0,
        full_every: int = 1,
        author: tuple[int, int] = (0, 0),
        transport: WeightTransport | None = None,
    ) -> None:
        """Of `full_every` versions one is published whole and the others as deltas alone."""
        super().__init__("learner", worker_id, start_s=start_s)
        self.rank = rank
        self.update_s = update_s
        self.publish_s = publish_s
        self.save_s = save_s
        self.version = 0
        self.loss_history: list[float] = []
        """By step, those before a loaded checkpoint included."""
        self.heads: list[tuple[int, int]] = []
        """Step and number of groups of each call of `accumulate`."""
        self._full_every = full_every
        self._author = author
        self._transport = transport or MemoryTransport()
        self._trained = bytes(16)
        self._published: WeightHandle | None = None
        self._num_since_full = 0

    async def rendezvous(self) -> str:
        await self._answer()
        return "simulated"

    async def start(self, meeting_point: str | None = None) -> None:
        await super().start()

    async def accumulate(self, algorithm: Any, groups: Sequence[RolloutGroup], *, step: int) -> None:
        """Noted, and without effect on what `update` tells."""
        await self._answer()
        self.heads.append((step, len(groups)))

    async def update(self, algorithm: Any, batch: Batch) -> StepReport:
        """Takes `update_s` and is applied at its end, or not at all."""
        await self._answer()
        await self._work(self.update_s, f"updating on step {batch.step}")
        self._trained = _digest(self._trained, batch)
        self.version += 1
        self.tokens_total += batch.num_tokens
        loss = int.from_bytes(self._trained[:6], "big") / 2**48
        self.loss_history.append(loss)
        metrics = {"learner/loss": loss, "learner/grad_norm": 1.0, "learner/update_s": self.update_s * self.slowdown}
        return StepReport(step=batch.step, version=self.version, metrics=metrics)

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """Values that follow from all it was ever trained on, so that a replay at another version would show."""
        await self._answer()
        value = int.from_bytes(self._trained[:3], "big") / 2**24
        return tuple(replace(group, values=np.full(group.num_tokens, value, np.float32)) for group in groups)

    async def assess(self, algorithm: Any, groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
        await self._answer()
        return {"learner/loss": self.loss_history[-1] if self.loss_history else 0.0}

    async def publish(self) -> WeightHandle | None:
        await self._answer()
        await self._work(self.publish_s, "publishing weights")
        if self.rank != 0:
            return None
        before, self._published = self._published, self._whole()
        if self._full_every == 1:
            return self._published
        if before is None or self._num_since_full + 1 >= self._full_every:
            self._num_since_full = 0
            return self._published
        self._num_since_full += 1
        return WeightHandle(
            manifest=self._published.manifest,
            location=None,
            probe=self._published.probe,
            delta=_delta(before),
            author=self._author,
            deltas_follow=True,
        )

    async def publish_full(self) -> WeightHandle:
        """The version last published, whole. Raises `WeightsUnavailable` before the first."""
        await self._answer()
        if self._published is None:
            raise WeightsUnavailable("no weight version was published yet: call publish first")
        return self._published

    async def save(self, path: Path, *, with_state: bool) -> None:
        await self._answer()
        await self._work(self.save_s, f"saving {path.name}")
        if self.rank != 0:
            return
        state = {
            "version": self.version,
            "trained": self._trained.hex(),
            "losses": [float(loss).hex() for loss in self.loss_history],
        }
        path.mkdir(parents=True, exist_ok=True)
        (path / STATE_FILE).write_text(json.dumps(state))

    async def load(self, path: Path) -> None:
        await self._answer()
        state = json.loads((path / STATE_FILE).read_text())
        self.version = state["version"]
        self._trained = bytes.fromhex(state["trained"])
        self.loss_history = [float.fromhex(loss) for loss in state["losses"]]

    def _whole(self) -> WeightHandle:
        buffer = np.zeros(64, np.uint8)
        buffer[:16] = np.frombuffer(self._trained, np.uint8)
        digest = xxhash.xxh3_64_hexdigest(self._trained)
        tensor = TensorSpec(name="weight", shape=(4,), dtype="float32", offset=0, num_bytes=16, digest=digest)
        manifest = WeightManifest(
            version=self.version, tensors=(tensor,), num_bytes=64, fingerprint=fingerprint([tensor])
        )
        return WeightHandle(
            manifest=manifest,
            location=self._transport.publish(manifest, buffer, author=self._author),
            probe=LogitProbe(token_ids=np.zeros(1, np.int32), logprobs=np.zeros(0, np.float32), tolerance=1e-3),
            author=self._author,
            deltas_follow=self._full_every > 1,
        )

    def _status(self) -> WorkerStatus:
        return replace(super()._status(), version=self.version)


def _delta(before: WeightHandle) -> WeightDelta:
    return WeightDelta(
        base_version=before.version, base_fingerprint=before.manifest.fingerprint, location=None, num_bytes=16
    )


def _digest(trained: bytes, batch: Batch) -> bytes:
    """xxh3-128 over what was trained before and every trained column of the batch, who generated it left out."""
    running = xxhash.xxh3_128(trained)
    running.update(batch.step.to_bytes(8, "big"))
    for group in batch.groups:
        running.update(f"{group.request_id} {group.prompt.prompt_id}".encode())
        for column in _columns(group):
            running.update(np.ascontiguousarray(column).data)
    return running.digest()


def _columns(group: RolloutGroup) -> list[np.ndarray]:
    columns = (group.prompt.token_ids, group.lengths, group.token_ids, group.logprobs, group.versions)
    filled = (group.rewards, group.reference_logprobs, group.values, group.returns, group.advantages)
    return [*columns, *(column for column in filled if column is not None)]
