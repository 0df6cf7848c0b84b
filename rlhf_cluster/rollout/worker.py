"""The rollout worker: one engine, one thread that drives it, and weights that are proven before they are served.

The thread steps the engine; submissions, adoptions and aborts are calls that it runs between two steps, so the engine
needs no locks and `status` answers while a step is running.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import psutil

from rlhf_cluster.errors import NeedsFullVersion, NotServing, RoleTimeout, StaleVersion, WeightsUnavailable
from rlhf_cluster.records import Adopted, RolloutGroup, RolloutRequest, WeightHandle, WeightManifest, WorkerStatus
from rlhf_cluster.roles import WeightTransport
from rlhf_cluster.rollout import proof
from rlhf_cluster.rollout.engine import Engine
from rlhf_cluster.rollout.step_loop import ROLE, GroupStream, StepLoop

Result = TypeVar("Result")


class OpensEngine(Protocol):
    """What the settings of every engine can do."""

    def open(self, model_path: Path, *, threads: int) -> Engine: ...


class RolloutWorker:
    """See `roles.RolloutWorker`. Nothing heavy happens before `start`; `adopt` starts a worker that was not."""

    def __init__(
        self,
        engine_settings: OpensEngine,
        model_path: Path,
        *,
        worker_id: str,
        transport: WeightTransport,
        threads: int = 1,
        patience_s: float = 600.0,
    ) -> None:
        """`patience_s` bounds every wait for the engine: to open, to finish a step, to make one more token."""
        self.worker_id = worker_id
        self._transport = transport
        self._patience_s = patience_s
        self._loop = StepLoop(lambda: engine_settings.open(model_path, threads=threads), worker_id=worker_id)
        self._version = -1
        self._refusal: str | None = "no weight version was adopted yet"
        """Why nothing is served, None while serving; written by the step thread alone."""
        self._proven: WeightManifest | None = None
        """What the engine was proven to hold, None where nothing is sure."""
        self._author = (0, 0)
        """Of the version adopted last."""
        self._base: proof.Received | None = None
        """The newest version's bytes, where deltas may be offered that apply to them."""
        self._adopting = asyncio.Lock()
        self._draining = False

    async def start(self) -> None:
        """Open the engine. Raises what opening raised. Starting twice is fine."""
        self._loop.start()
        await self._between_steps(lambda engine: None, activity="opening the engine")

    async def run(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[tuple[RolloutGroup, ...]]:
        """Groups as they finish, all that finished since the last message at once; after `drain`, the unfinished too.

        Closing the iterator, or cancelling who waits on it, aborts what still runs. Raises `NotServing`,
        `PromptTooLong` before anything is generated, and `RoleDied` when the engine crashes.
        """
        stream = GroupStream(asyncio.get_running_loop(), num_groups=len(requests))
        if self._draining or self._loop.activity == "not started":
            raise self._not_serving()
        try:
            await self._between_steps(lambda engine: self._admit(engine, requests, stream), activity="taking prompts")
            while stream.num_missing:
                yield await self._next_groups(stream)
        finally:
            if stream.num_missing:
                self._loop.abandon(stream)

    async def adopt(self, handle: WeightHandle) -> Adopted:
        """Fetch, verify, load and prove a version. The old one goes on generating until the new one is here."""
        started = time.monotonic()
        await self.start()
        async with self._adopting:
            self._refuse_older_author(handle)
            try:
                self._refuse_to_go_back(handle)
                received = await asyncio.to_thread(proof.fetch_verified, self._transport, handle, self._base)
                self._base = received if handle.deltas_follow else None
                num_held, gap = await self._between_steps(
                    lambda engine: self._take(engine, handle, received.buffer),
                    activity=f"adopting weights version {handle.version}",
                )
            except (NeedsFullVersion, WeightsUnavailable):
                raise  # Nothing was touched: what is served, and held as a base, goes on.
            except BaseException as error:
                self._base = None
                # Posted, not awaited: this also runs when the caller gave up and was cancelled.
                refusal = f"weights version {handle.version} was refused: {error!r}"
                self._loop.post(lambda engine: self._refuse(engine, refusal))
                raise
        return Adopted(
            worker_id=self.worker_id,
            version=handle.version,
            fingerprint=handle.manifest.fingerprint,
            num_held_tensors=num_held,
            probe_gap=gap,
            adopt_s=time.monotonic() - started,
        )

    async def drain(self) -> None:
        """See `roles.RolloutWorker`. The groups are in their streams when it returns. Draining twice is fine.

        Waits for the step or the loading of weights that is under way. Adopting stays allowed: an update that is on its
        way to all workers should not fail because one of them is leaving.
        """
        self._draining = True
        if self._loop.state == "open":
            await self._between_steps(self._loop.hand_over_now, activity="draining")

    async def status(self) -> WorkerStatus:
        return WorkerStatus(
            role=ROLE,
            worker_id=self.worker_id,
            state=self._state(),
            activity=self._loop.activity,
            version=self._version if self._refusal is None else -1,
            num_in_flight=self._loop.num_in_flight,
            tokens_total=self._loop.tokens_total,
            tokens_in_flight=self._loop.tokens_in_flight,
            busy_s=self._loop.busy_s,
            rss_bytes=psutil.Process().memory_info().rss,
            process_id=os.getpid(),
        )

    async def close(self) -> None:
        if not await asyncio.to_thread(self._loop.close, timeout_s=self._patience_s):
            raise self._timeout("closing")

    def _state(self) -> str:
        if self._draining and self._loop.state != "closed":
            return "draining"
        if self._loop.state != "open":
            return self._loop.state
        if self._adopting.locked():
            return "adopting"
        if self._refusal is not None:
            return "unverified"
        return "busy" if self._loop.num_in_flight else "idle"

    def _admit(self, engine: Engine, requests: Sequence[RolloutRequest], stream: GroupStream) -> None:
        if self._draining or self._refusal is not None:
            raise self._not_serving()
        self._loop.admit_now(engine, requests, stream)

    def _refuse_older_author(self, handle: WeightHandle) -> None:
        """A learner that was replaced and does not know it changes nothing here."""
        if handle.author < self._author:
            raise StaleVersion(
                f"{self.worker_id} follows the learner (epoch, incarnation) {self._author} and was handed weights "
                f"version {handle.version} by {handle.author}, which was replaced"
            )

    def _refuse_to_go_back(self, handle: WeightHandle) -> None:
        if handle.version < self._version:
            raise StaleVersion(
                f"{self.worker_id} has served weights version {self._version} and was handed {handle.version}: "
                "versions never go back"
            )

    def _take(self, engine: Engine, handle: WeightHandle, buffer: np.ndarray) -> tuple[int, float]:
        """The part of `adopt` that stops generation. A failure is acted on here, before another step can be taken."""
        self._loop.activity = f"adopting weights version {handle.version}"
        try:
            found = proof.load_and_prove(engine, handle, buffer, proven=self._proven)
        except BaseException as error:
            self._refuse(engine, f"weights version {handle.version} was refused: {error!r}")
            raise
        self._version, self._refusal = handle.version, None
        self._proven, self._author = handle.manifest, handle.author
        return found

    def _refuse(self, engine: Engine, reason: str) -> None:
        self._refusal, self._proven = reason, None
        self._loop.fail_all_now(engine, self._not_serving())

    def _not_serving(self) -> NotServing:
        return NotServing(
            f"{self.worker_id} serves nothing: {'it is draining' if self._draining else self._refusal}",
            role=ROLE,
            worker_id=self.worker_id,
            activity=self._loop.activity,
        )

    async def _next_groups(self, stream: GroupStream) -> tuple[RolloutGroup, ...]:
        while True:
            tokens_before = self._loop.tokens_total
            try:
                async with asyncio.timeout(self._patience_s):
                    return await stream.next()
            except TimeoutError:
                # A long completion is no fault; no token for that long is.
                if self._loop.tokens_total == tokens_before:
                    raise self._timeout(self._loop.activity) from None

    async def _between_steps(self, call: Callable[[Engine], Result], *, activity: str) -> Result:
        future = asyncio.wrap_future(self._loop.post(call))
        try:
            async with asyncio.timeout(self._patience_s):
                return await future
        except TimeoutError:
            raise self._timeout(activity) from None

    def _timeout(self, activity: str) -> RoleTimeout:
        return RoleTimeout(
            f"{self.worker_id} did not get on within {self._patience_s:g} s while {activity}; its engine was "
            f"{self._loop.activity}",
            role=ROLE,
            worker_id=self.worker_id,
            activity=activity,
        )
