"""The waist: everything the driver can ask of a role. Five protocols, all on records, none on tensors.

Roles are plain classes. Locally the handle *is* the object; on Ray a handle made in `runtime/` has the same methods.
All methods but `WeightTransport`'s are async; blocking work runs in one thread of the role, so `status` answers while
a role is busy. Every role also has `status()` and `close()`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlhf_cluster.records import (
    Adopted,
    Batch,
    RolloutGroup,
    RolloutRequest,
    StepReport,
    WeightHandle,
    WeightManifest,
    WorkerStatus,
)


class Role(Protocol):
    async def status(self) -> WorkerStatus: ...

    async def close(self) -> None:
        """Free devices, processes and sockets. Closing twice is fine."""
        ...


class RolloutWorker(Role, Protocol):
    def run(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[tuple[RolloutGroup, ...]]:
        """Generate; groups come back as they finish, several to a message. Raises `NotServing` before a first adopt.

        A request with `begun` goes on from there. After `drain` the stream yields what is left, unfinished groups
        included (`is_finished` false), and ends.
        """
        ...

    async def adopt(self, handle: WeightHandle) -> Adopted:
        """Load a version and prove it. On any failure the worker serves nothing until an adopt succeeds.

        Raises a `WeightError`. After three of them the worker goes on with what it serves: `NeedsFullVersion`, when the
        handle has only a delta that does not apply here, `WeightsUnavailable`, when its bytes went with the learner
        that published them, and `StaleVersion` for a learner that was replaced.
        """
        ...

    async def drain(self) -> None:
        """Admit nothing more and end every stream at once, with the groups as far as they got."""
        ...


class RewardServer(Role, Protocol):
    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """The same groups with `rewards`, `breakdown` and `invalid` filled. Reads `texts`; no bad reward raises."""
        ...


class ReferenceScorer(Role, Protocol):
    async def logprobs(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """The same groups with `reference_logprobs` filled."""
        ...


class Learner(Role, Protocol):
    async def accumulate(self, algorithm: Any, groups: Sequence[RolloutGroup], *, step: int) -> None:
        """Learn what can be learned of the batch of `step` while it is not complete: `groups` are all that it is known
        to begin with, credited. Only saves time: the `update` of this step gives the same result without it."""
        ...

    async def update(self, algorithm: Any, batch: Batch) -> StepReport:
        """One optimizer step (or the several epochs of `algorithm`, a value of `algorithms/`, over the batch)."""
        ...

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """The same groups with `values` of the critic, or with `rewards` where a reward model is trained."""
        ...

    async def assess(self, algorithm: Any, groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
        """Loss and figures of the algorithm over credited groups that are not learned from."""
        ...

    async def publish(self) -> WeightHandle:
        """Put the current version where workers can fetch it. The previous one stays until the next publish."""
        ...

    async def publish_full(self) -> WeightHandle:
        """The version last published once more, whole: for a joiner that cannot apply a delta. Does not wait for an
        update that is under way."""
        ...

    async def save(self, path: Path) -> None:
        """Write the policy in Hugging Face format into the new directory `path`, which `transformers` and vLLM load."""
        ...


class WeightTransport(Protocol):
    """Moves one flat buffer from the learner's rank 0 to any number of workers."""

    def publish(
        self, manifest: WeightManifest, buffer: np.ndarray, *, author: tuple[int, int] = (0, 0), is_delta: bool = False
    ) -> Any:
        """Store uint8 [num_bytes], the version or its delta; returns the `location`. Keeps this version and the one
        before. What one author stores, another never overwrites."""
        ...

    def fetch(self, handle: WeightHandle) -> np.ndarray:
        """uint8 [num_bytes], read-only, without a copy where the medium allows. Raises `WeightsUnavailable`."""
        ...

    def close(self) -> None: ...
