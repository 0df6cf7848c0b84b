"""The rollout workers as the driver sees them: what each one serves and holds, and whether it gets on.

consumes     workers that the pool brings up, weight versions that are offered, requests
produces     groups, and requests whose worker was lost or drained, both to the requests' owner
waits for    adoptions, messages of workers, statuses of quiet ones; each wait bounded
unblocked by a version that is offered; a worker that joins, answers, is lost or is drained
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.vigil import Vigil
from rlhf_cluster.errors import (
    BadAnswer,
    NeedsFullVersion,
    NotServing,
    RoleDied,
    RoleError,
    RoleTimeout,
    WeightError,
    WeightsUnavailable,
)
from rlhf_cluster.flow.group_checks import problem_of
from rlhf_cluster.flow.routing import Roster
from rlhf_cluster.records import Adopted, RolloutGroup, RolloutRequest, WeightHandle
from rlhf_cluster.runtime.bounds import each_within, within
from rlhf_cluster.runtime.watch import watched

if TYPE_CHECKING:
    from rlhf_cluster.driver.ledger.ledger import Ledger
    from rlhf_cluster.roles import RolloutWorker
    from rlhf_cluster.runtime.pool import Pool

ROLE = "rollout worker"
LOOK_AGAIN_S = 5.0


class Owner(Protocol):
    """Whoever sends requests: the training's rollouts, or an evaluation."""

    def arrived(self, worker_id: str, groups: Sequence[RolloutGroup]) -> None:
        """Finished groups."""
        ...

    def returned(self, worker_id: str, requests: Sequence[RolloutRequest], error: Exception | None) -> None:
        """The worker will not answer these: it was lost to `error`, or drained (None), and then what it had generated
        is in `RolloutRequest.begun`."""
        ...

    def hedge(self, worker_id: str, requests: Sequence[RolloutRequest]) -> None:
        """The worker holds these and makes no progress; it may be about to be lost."""
        ...


@dataclass(slots=True, eq=False)
class _Worker:
    worker_id: str
    handle: RolloutWorker
    held: dict[int, tuple[RolloutRequest, Owner]] = field(default_factory=dict)
    """By a number of the sending, because an evaluation may use the request ids of the training."""
    proof: Adopted | None = None
    draining: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def version(self) -> int:
        return self.proof.version if self.proof else -1


class Fleet:
    """One per job; lives in the driver's event loop and nowhere else, so it needs no locks."""

    def __init__(self, job: JobConfig, pool: Pool, *, ledger: Ledger, clock: Clock) -> None:
        self.pool = pool
        self.roster = Roster(max_in_flight=job.max_in_flight)
        self.changed = asyncio.Event()
        """Set when a worker began to serve, was lost, or left."""
        self._limits = job.limits
        self._recovery = job.recovery
        self._max_staleness = job.train.max_staleness
        self._ledger = ledger
        self._clock = clock
        self._workers: dict[str, _Worker] = {}
        self._newest: WeightHandle | None = None
        self._publish_full: Callable[[], Awaitable[WeightHandle]] | None = None
        self._vigil = Vigil(job, handle_of=self._handle_of, hedge=self._hedge, lost=self.lost, clock=clock)
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Begin to look after the pool's workers. Close with `aclose`."""
        self._spawn(self._follow_pool())
        self._spawn(self._vigil.keep(self._spawn))
        self._spawn(self._look_again())

    @property
    def failure(self) -> BaseException | None:
        """Why no worker will come any more, or what our own code stumbled over."""
        return self._failure or self.pool.failure

    @property
    def num_in_flight(self) -> int:
        return sum(len(worker.held) for worker in self._workers.values())

    def serving(self) -> list[str]:
        """Workers that hold a proven version and take prompts, in the order in which they joined."""
        return [w.worker_id for w in self._workers.values() if w.proof is not None and not w.draining]

    @property
    def newest(self) -> WeightHandle | None:
        """The version that was offered last."""
        return self._newest

    def holds_newest(self, worker_id: str) -> bool:
        """Whether it serves the version that was offered last."""
        return self._newest is not None and self.version_of(worker_id) == self._newest.version

    def _handle_of(self, worker_id: str) -> RolloutWorker | None:
        return self._workers[worker_id].handle if worker_id in self._workers else None

    def version_of(self, worker_id: str) -> int:
        return self._workers[worker_id].version if worker_id in self._workers else -1

    def num_held(self, worker_id: str) -> int:
        return len(self._workers[worker_id].held) if worker_id in self._workers else 0

    async def offer(
        self, handle: WeightHandle, *, publish_full: Callable[[], Awaitable[WeightHandle]]
    ) -> list[Adopted]:
        """Hand a version to every worker; what they are generating goes on under it.

        Returns as soon as no worker that served lags more than `max_staleness` versions behind: in a synchronous job
        when all have adopted, in an asynchronous one earlier. A worker that is lost on the way is not waited for, and
        one that is still to adopt its first version only where none serves yet: training does not stop for a joiner.
        """
        self._newest, self._publish_full = handle, publish_full
        self._look_after_new_ones()
        for worker in self._workers.values():
            worker.news.set()
        there = [worker for worker in self._workers.values() if worker.proof is not None]
        there = there or list(self._workers.values())
        # One that has caught up never lags behind this version again, so each is passed once however often we wake.
        waited_for = list(there)
        while waited_for:
            if not self._lags(waited_for[-1]):
                waited_for.pop()
                continue
            if self.failure is not None:
                raise self.failure
            await self.news()
        return [worker.proof for worker in there if worker.proof is not None]

    async def news(self) -> None:
        """Wait until `changed` is set, or for a few seconds: then everything is worth another look anyway.

        Call it right after the look that found nothing to do, without waiting for anything in between.
        """
        self.changed.clear()
        await self.changed.wait()

    def renew(self, handle: WeightHandle) -> None:
        """Another learner group published the newest version again; workers that hold these weights keep them."""
        self._newest = handle
        for worker in self._workers.values():
            worker.news.set()

    def send(self, worker_id: str, requests: Sequence[RolloutRequest], owner: Owner) -> None:
        """Have `worker_id` answer; what comes of it is told to `owner`."""
        worker = self._workers[worker_id]
        self.roster.load(worker_id, len(requests))
        self._vigil.sent(worker_id)
        numbered = {}
        for request in requests:
            self._numbers += 1
            numbered[request.request_id] = self._numbers
            worker.held[self._numbers] = (request, owner)
        self._spawn(self._generate(worker, requests, numbered, owner), of=worker)

    def lost(self, worker_id: str, error: Exception) -> None:
        """`worker_id` is gone or not to be trusted: replace it and give back what it held. Twice is fine."""
        worker = self._workers.pop(worker_id, None)
        if worker is None:
            return
        self._forget(worker)
        self.pool.lost(worker_id, error)
        self._give_back(worker, list(worker.held), error)
        self.changed.set()

    async def aclose(self) -> None:
        """Stop looking after workers; they abort the requests of a stream that nobody reads."""
        tasks = [*self._tasks, *(task for worker in self._workers.values() for task in worker.tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_again(self) -> None:
        """One timer for all who wait for news, so that the waits themselves cost none."""
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            self.changed.set()

    async def _follow_pool(self) -> None:
        while True:
            for worker_id in list(self._workers):
                if not self.pool.holds(worker_id):
                    where = {"role": ROLE, "worker_id": worker_id, "activity": "serving"}
                    self.lost(worker_id, RoleDied(self.pool.why_lost(worker_id).splitlines()[0], **where))
            self._look_after_new_ones()
            for worker_id in self.pool.draining():
                worker = self._workers.get(worker_id)
                if worker is not None and not worker.draining:
                    worker.draining = True
                    self.roster.leave(worker_id)
                    self._spawn(self._drain(worker), of=worker)
            self.changed.set()
            self.pool.changed.clear()
            await self.pool.changed.wait()

    def _look_after_new_ones(self) -> None:
        for worker_id, handle in self.pool.started().items():
            if worker_id not in self._workers:
                worker = self._workers[worker_id] = _Worker(worker_id, handle)
                self._spawn(self._keep_current(worker), of=worker)

    async def _keep_current(self, worker: _Worker) -> None:
        """Adopt whatever is newest, again and again. Versions in between are passed over."""
        while True:
            if self._newest is not None and not self._holds(worker, self._newest):
                await self._adopt(worker, self._newest)
            else:
                worker.news.clear()
                await worker.news.wait()

    async def _adopt(self, worker: _Worker, handle: WeightHandle) -> None:
        self._vigil.paused(worker.worker_id)
        try:
            try:
                proof = await self._adopted(worker, handle)
            except (NeedsFullVersion, WeightsUnavailable):
                # A joiner cannot apply a delta; and what a lost learner had published went with it.
                assert self._publish_full is not None, "a version was offered together with the way to get it whole"
                proof = await self._adopted(worker, await self._publish_full())
        finally:
            self._vigil.resumed(worker.worker_id)
        self._ledger.proved(proof)
        worker.proof = proof
        if not worker.draining:
            self.roster.serve(worker.worker_id, version=proof.version)
        self.pool.serves(worker.worker_id)
        self.changed.set()

    async def _adopted(self, worker: _Worker, handle: WeightHandle) -> Adopted:
        where = self._where(worker, f"adopting weights version {handle.version}")
        answer = watched(
            worker.handle.adopt(handle),
            handle=worker.handle,
            stall_s=self._recovery.stall_s,
            unresponsive_s=self._recovery.unresponsive_s,
            poll_s=self._vigil.poll_s,
            counts_tokens=False,
            **where,
        )
        return await within(self._limits.weights_s, answer, **where)

    async def _generate(
        self, worker: _Worker, requests: Sequence[RolloutRequest], numbers: dict[int, int], owner: Owner
    ) -> None:
        where = self._where(worker, f"generating {len(requests)} groups")
        try:
            async for groups in each_within(self._limits.generate_s, worker.handle.run(requests), **where):
                self._receive(worker, groups, numbers, owner)
        except NotServing as error:
            if not worker.draining:
                raise
            self._give_back(worker, list(numbers.values()), error)
        if numbers and not worker.draining:
            raise BadAnswer(f"{worker.worker_id} ended its answer with {len(numbers)} groups missing", **where)

    def _receive(self, worker: _Worker, groups: Sequence[RolloutGroup], numbers: dict[int, int], owner: Owner) -> None:
        """Check what came, then pass it on: the finished groups, and the others as requests to go on from.

        All of it is checked before any of it is taken off the worker: a refused answer is given back as a whole.
        """
        finished, begun, open_numbers = [], [], dict(numbers)
        for group in groups:
            request, _ = worker.held.get(open_numbers.pop(group.request_id, -1), (None, None))
            problem = (
                problem_of(request, group, newest_version=self._newest.version if self._newest else -1)
                if request is not None
                else f"request {group.request_id} was not asked of it, or answered before"
            )
            if problem:
                where = self._where(worker, "answering")
                raise BadAnswer(f"{worker.worker_id} gave an answer that cannot be true: {problem}", **where)
            assert request is not None
            if group.is_finished:
                finished.append(group)
            else:
                begun.append(replace(request, begun=group))
        for group in groups:
            del worker.held[numbers.pop(group.request_id)]
        self.roster.load(worker.worker_id, -len(groups))
        self._vigil.heard(worker.worker_id, has_work=bool(worker.held))
        if finished:
            owner.arrived(worker.worker_id, finished)
        if begun:
            owner.returned(worker.worker_id, begun, None)

    def _give_back(self, worker: _Worker, numbers: Sequence[int], error: Exception | None) -> None:
        by_owner: dict[int, tuple[Owner, list[RolloutRequest]]] = {}
        for number in numbers:
            if number in worker.held:
                request, owner = worker.held.pop(number)
                by_owner.setdefault(id(owner), (owner, []))[1].append(request)
        for owner, requests in by_owner.values():
            owner.returned(worker.worker_id, requests, error)

    async def _drain(self, worker: _Worker) -> None:
        """Have the worker hand over what it holds, then let it go."""
        where = self._where(worker, "handing over its unfinished work")
        await within(self._limits.weights_s, worker.handle.drain(), **where)
        deadline_s = self._clock.monotonic() + self._limits.weights_s
        while worker.held:
            if self._clock.monotonic() > deadline_s:
                raise RoleTimeout(f"{worker.worker_id} kept {len(worker.held)} requests after it was drained", **where)
            await asyncio.sleep(0.05)
        self._workers.pop(worker.worker_id, None)
        self._forget(worker, but=asyncio.current_task())
        self.pool.drained(worker.worker_id)
        self.changed.set()

    def _hedge(self, worker_id: str) -> None:
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        by_owner: dict[int, tuple[Owner, list[RolloutRequest]]] = {}
        for request, owner in worker.held.values():
            by_owner.setdefault(id(owner), (owner, []))[1].append(request)
        for owner, requests in by_owner.values():
            owner.hedge(worker.worker_id, requests)

    def _lags(self, worker: _Worker) -> bool:
        if self._workers.get(worker.worker_id) is not worker or worker.draining or self._newest is None:
            return False
        return worker.version < max(self._newest.version - self._max_staleness, 0)

    def _holds(self, worker: _Worker, handle: WeightHandle) -> bool:
        proof = worker.proof
        return proof is not None and (proof.version, proof.fingerprint) == (
            handle.version,
            handle.manifest.fingerprint,
        )

    def _forget(self, worker: _Worker, but: asyncio.Task[Any] | None = None) -> None:
        self.roster.leave(worker.worker_id)
        self._vigil.forget(worker.worker_id)
        for task in worker.tasks:
            if task is not but and task is not asyncio.current_task():
                task.cancel()

    def _where(self, worker: _Worker, activity: str) -> dict[str, str]:
        return {"role": ROLE, "worker_id": worker.worker_id, "activity": activity}

    def _spawn(self, work: Coroutine[Any, Any, None], *, of: _Worker | None = None) -> None:
        """Work of a worker that fails with an error of roles or weights means that the worker is lost."""
        task = asyncio.create_task(work)
        tasks = self._tasks if of is None else of.tasks
        tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if task.cancelled() or (error := task.exception()) is None:
                return
            if of is not None and isinstance(error, RoleError | WeightError):
                try:
                    self.lost(of.worker_id, error)
                except Exception as own:  # noqa: BLE001
                    error = own  # Nobody awaits a callback: it travels to whoever waits next.
                else:
                    return
            self._failure = self._failure or error
            self.changed.set()

        task.add_done_callback(ended)
