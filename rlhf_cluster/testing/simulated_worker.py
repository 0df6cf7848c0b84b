"""A rollout worker without engine, thread or process: groups finish when their time has passed.

It keeps `roles.RolloutWorker`: nothing before a first adopt, tokens after an adopt from the new version, begun groups
go on where they were, `drain` hands over what is unfinished, and `status` shows tokens growing while time passes.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from rlhf_cluster.errors import (
    FingerprintMismatch,
    NeedsFullVersion,
    NotServing,
    RlhfError,
    StaleVersion,
    WeightError,
    WeightsUnavailable,
)
from rlhf_cluster.records import Adopted, RolloutGroup, RolloutRequest, WeightHandle, WorkerStatus
from rlhf_cluster.roles import WeightTransport
from rlhf_cluster.testing import simulated_tokens
from rlhf_cluster.testing.simulated_pace import SecondsOf, one_second
from rlhf_cluster.testing.simulated_role import SimulatedRole


class _Stream:
    """Groups on their way to one reader."""

    __slots__ = ("_error", "_groups", "_news", "num_missing")

    def __init__(self, num_groups: int) -> None:
        self.num_missing = num_groups
        self._groups: list[RolloutGroup] = []
        self._error: RlhfError | None = None
        self._news = asyncio.Event()

    def deliver(self, group: RolloutGroup) -> None:
        self._groups.append(group)
        self._news.set()

    def fail(self, error: RlhfError) -> None:
        self._error = self._error or error
        self._news.set()

    async def next(self) -> tuple[RolloutGroup, ...]:
        await self._news.wait()
        if not self._groups:
            assert self._error is not None
            raise self._error
        groups, self._groups = tuple(self._groups), []
        self.num_missing -= len(groups)
        if self._error is None:
            self._news.clear()
        return groups


@dataclass(slots=True, eq=False)
class _Job:
    """A request with this worker, waiting for a slot or running."""

    request: RolloutRequest
    stream: _Stream
    num_tokens: int
    """That each completion is to have."""
    first: int
    """Tokens that the shortest unfinished completion has already."""
    started_s: float = math.inf
    duration_s: float = 0.0
    num_adopted: int = 0
    """Versions that the worker had adopted when this began."""
    timer: asyncio.TimerHandle | None = None

    def position(self, now_s: float) -> int:
        """Tokens of a completion by now; the last one comes with the end."""
        if now_s < self.started_s:
            return self.first
        share = (now_s - self.started_s) / self.duration_s if self.duration_s else 1.0
        grown = self.first + int((self.num_tokens - self.first) * share)
        return max(self.first, min(grown, self.num_tokens - 1))


class SimulatedWorker(SimulatedRole):
    """See `roles.RolloutWorker`. `slots` requests run at once, the others wait in order; None is no bound."""

    def __init__(
        self,
        worker_id: str = "rollout-0",
        *,
        seconds_of: SecondsOf = one_second,
        slots: int | None = None,
        tokens_per_completion: int = 16,
        adopt_s: float = 0.0,
        start_s: float = 0.0,
        transport: WeightTransport | None = None,
    ) -> None:
        """Without a `transport` a handle is taken at its word; with one its bytes are fetched and counted."""
        super().__init__("rollout worker", worker_id, start_s=start_s)
        self.seconds_of = seconds_of
        self.slots = slots
        self.tokens_per_completion = tokens_per_completion
        self.adopt_s = adopt_s
        self._transport = transport
        self._refusal: str | None = "no weight version was adopted yet"
        self._is_drained = False
        self._num_adopting = 0
        self._served: WeightHandle | None = None
        self._adopted: list[tuple[float, int]] = []
        """(when, version), in order."""
        self._waiting: deque[_Job] = deque()
        self._running: dict[_Job, None] = {}
        self._stalled_at_s = math.inf
        self._busy_since_s = 0.0

    async def run(self, requests: Sequence[RolloutRequest]) -> AsyncGenerator[tuple[RolloutGroup, ...]]:
        await self._answer()
        if self._refusal is not None or self._is_drained:
            raise self._not_serving()
        stream = _Stream(len(requests))
        for request in requests:
            num_tokens = min(self.tokens_per_completion, request.sampling.max_new_tokens)
            first = min(simulated_tokens.shortest_begun(request), num_tokens)
            self._waiting.append(_Job(request, stream, num_tokens, first))
        self._fill_slots()
        try:
            while stream.num_missing:
                yield await stream.next()
        finally:
            if stream.num_missing:
                self._remove([job for job in (*self._running, *self._waiting) if job.stream is stream])

    async def adopt(self, handle: WeightHandle) -> Adopted:
        started_s = self._now_s()
        await self._answer()
        self._refuse_older_author(handle)
        self._num_adopting += 1
        try:
            await self._pass(self.adopt_s, f"adopting weights version {handle.version}")
            self._check(handle)
        except (NeedsFullVersion, WeightsUnavailable):
            raise
        except WeightError as error:
            self.refuse(f"weights version {handle.version} was refused: {error}")
            raise
        finally:
            self._num_adopting -= 1
        self._served, self._refusal, self.is_started = handle, None, True
        self._adopted.append((self._now_s(), handle.version))
        return Adopted(
            worker_id=self.worker_id,
            version=handle.version,
            fingerprint=handle.manifest.fingerprint,
            num_held_tensors=len(handle.manifest.tensors),
            probe_gap=0.0,
            adopt_s=self._now_s() - started_s,
        )

    async def drain(self) -> None:
        await self._answer()
        self._is_drained = True
        left = (*self._running, *self._waiting)
        for job in left:
            job.stream.deliver(self._unfinished(job))
        self._remove(left)

    def refuse(self, reason: str) -> None:
        """Serve nothing until an adopt succeeds; whoever waits for groups gets `NotServing`."""
        self._refusal = reason
        self._fail_all(self._not_serving())

    def stall(self) -> None:
        """From now on no request gets another token, while everything else is answered."""
        self._stalled_at_s = min(self._stalled_at_s, self._now_s())
        for job in self._running:
            _cancel(job)

    def hang(self) -> None:
        super().hang()
        self.stall()

    def _end(self, reason: str) -> None:
        super()._end(reason)
        self._fail_all(self._died())

    def _status(self) -> WorkerStatus:
        now_s = self._progress_s()
        tokens_in_flight = sum(self._new_tokens(job, job.position(now_s)) for job in self._running)
        return WorkerStatus(
            role=self.role,
            worker_id=self.worker_id,
            state=self._state(),
            activity=f"generating for {len(self._running)} prompts" if self._running else self.activity,
            version=self._adopted[-1][1] if self._refusal is None else -1,
            num_in_flight=len(self._running) + len(self._waiting),
            tokens_total=self.tokens_total + tokens_in_flight,
            tokens_in_flight=tokens_in_flight,
            busy_s=self._busy_s + (self._now_s() - self._busy_since_s if self._running else 0.0),
        )

    def _state(self) -> str:
        if self._is_closed or not self.is_started:
            return super()._state()
        if self._is_drained:
            return "draining"
        if self._num_adopting:
            return "adopting"
        if self._refusal is not None:
            return "unverified"
        return "busy" if self._running else "idle"

    def _refuse_older_author(self, handle: WeightHandle) -> None:
        """A learner that was replaced and does not know it changes nothing here."""
        if self._served and handle.author < self._served.author:
            raise StaleVersion(
                f"{self.worker_id} follows the learner (epoch, incarnation) {self._served.author} and was handed "
                f"weights version {handle.version} by {handle.author}, which was replaced"
            )

    def _check(self, handle: WeightHandle) -> None:
        """Raise a `WeightError` unless the version may be served after the one that is."""
        served = self._served
        if served and handle.version < served.version:
            raise StaleVersion(
                f"{self.worker_id} has served weights version {served.version} and was handed {handle.version}: "
                "versions never go back"
            )
        location = handle.location
        if location is None:
            delta, held = handle.delta, served.manifest.fingerprint if served else None
            if delta is None or delta.base_fingerprint != held:
                raise NeedsFullVersion(
                    f"{self.worker_id} holds weights {held} and was handed a delta for version {handle.version} only"
                )
        elif self._transport is not None:
            num_bytes = self._transport.fetch(handle).nbytes
            if num_bytes != handle.manifest.num_bytes:
                raise FingerprintMismatch(
                    f"weights version {handle.version}: {num_bytes} bytes arrived, the manifest says "
                    f"{handle.manifest.num_bytes}"
                )

    def _not_serving(self) -> NotServing:
        return NotServing(
            f"{self.worker_id} serves nothing: {'it is draining' if self._is_drained else self._refusal}",
            role=self.role,
            worker_id=self.worker_id,
            activity=self.activity,
        )

    def _fill_slots(self) -> None:
        while self._waiting and (self.slots is None or len(self._running) < self.slots):
            job = self._waiting.popleft()
            self._begin(job)

    def _begin(self, job: _Job) -> None:
        now_s = self._now_s()
        if not self._running:
            self._busy_since_s = now_s
        share_left = 1.0 - job.first / job.num_tokens
        job.started_s = now_s
        job.duration_s = self.seconds_of(job.request) * share_left * self.slowdown
        job.num_adopted = len(self._adopted)
        self._running[job] = None
        if self._stalled_at_s > now_s:
            job.timer = asyncio.get_running_loop().call_later(job.duration_s, self._finish, job)

    def _finish(self, job: _Job) -> None:
        request, start = job.request, job.num_adopted
        if request.begun is None and start == len(self._adopted):
            group = simulated_tokens.whole_group(
                request, worker_id=self.worker_id, num_tokens=job.num_tokens, version=self._adopted[-1][1]
            )
        else:
            group = self._grown(job, job.num_tokens)
        job.stream.deliver(group)
        self._leave(job, job.num_tokens)
        self._fill_slots()

    def _unfinished(self, job: _Job) -> RolloutGroup:
        return self._grown(job, job.position(self._progress_s()))

    def _grown(self, job: _Job, position: int) -> RolloutGroup:
        """The group of a request that met more than one version, was begun elsewhere or ends early."""
        spans = []
        if job.num_adopted:
            spans.append((job.first, self._adopted[job.num_adopted - 1][1]))
            later = self._adopted[job.num_adopted :]
            spans += [(job.position(min(when_s, self._stalled_at_s)), version) for when_s, version in later]
        return simulated_tokens.grown_group(
            job.request, worker_id=self.worker_id, num_tokens=job.num_tokens, position=position, spans=spans
        )

    def _remove(self, jobs: Sequence[_Job]) -> None:
        now_s = self._progress_s()
        gone = set(jobs)
        for job in jobs:
            _cancel(job)
            if job in self._running:
                self._leave(job, job.position(now_s))
        self._waiting = deque(job for job in self._waiting if job not in gone)
        if self.death is None and not self._is_drained:
            self._fill_slots()

    def _leave(self, job: _Job, position: int) -> None:
        del self._running[job]
        self.tokens_total += self._new_tokens(job, position)
        if not self._running:
            self._busy_s += self._now_s() - self._busy_since_s

    def _new_tokens(self, job: _Job, position: int) -> int:
        return (position - job.first) * job.request.num_completions

    def _fail_all(self, error: RlhfError) -> None:
        jobs = (*self._running, *self._waiting)
        for job in jobs:
            job.stream.fail(error)
        self._waiting.clear()
        self._remove(jobs)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def _progress_s(self) -> float:
        """The time up to which tokens were made."""
        return min(self._now_s(), self._stalled_at_s)


def _cancel(job: _Job) -> None:
    if job.timer is not None:
        job.timer.cancel()
