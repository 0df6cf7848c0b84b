"""Keeps the rollout workers busy: prompts go out while there is room, filled groups come in and wait for their batch.

consumes     prompts of the stream, as many as the buffer has room for
produces     groups with texts, rewards and whatever else the algorithm needs, oldest first
waits for    the fleet of rollout workers and the scoring; both bound their waits
unblocked by a group that arrives, one that is dropped, a batch that is taken, a worker that joins or adopts

A request's number is its place in the prompt stream. It is open from the dispatch until its group is taken or dropped,
whatever happens to the workers meanwhile; one that is lost with its worker goes out again and keeps its place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.data.stream import PromptStream
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.feed import OnHead, Tally
from rlhf_cluster.driver.fleet import Fleet
from rlhf_cluster.driver.resending import Resending
from rlhf_cluster.driver.scoring import DeadlyGroup, Scoring
from rlhf_cluster.errors import DataError
from rlhf_cluster.flow.buffer import Buffer, BufferSnapshot
from rlhf_cluster.flow.invalid_rate import InvalidRate
from rlhf_cluster.records import Prompt, RolloutGroup, RolloutRequest
from rlhf_cluster.records.events import Event, GroupDropped, PromptQuarantined, RewardFailed
from rlhf_cluster.records.ledger import Dropped

if TYPE_CHECKING:
    from rlhf_cluster.driver.ledger.ledger import Ledger

Decode = Callable[[Sequence[np.ndarray]], list[str]]
Score = Callable[[Sequence[RolloutGroup]], Awaitable[Sequence[RolloutGroup]]]


@dataclass(slots=True)
class _Open:
    """A request under way."""

    request: RolloutRequest
    holders: set[str] = field(default_factory=set)
    """Workers that have it now; two when one of them was hedged."""
    workers: set[str] = field(default_factory=set)
    """All that have generated tokens of it."""
    sent_s: float = 0.0
    arrived: bool = False


class Rollouts:
    """One per job; lives in the driver's event loop and nowhere else, so it needs no locks. An `Owner` of the fleet."""

    def __init__(
        self,
        job: JobConfig,
        fleet: Fleet,
        scoring: Scoring,
        *,
        ledger: Ledger,
        prompts: PromptStream,
        decode: Decode,
        emit: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        self.job = job
        self.fleet = fleet
        self.tally = Tally()
        self.paused = False
        """No new prompts go out; what is under way is finished and kept."""
        self._scoring = scoring
        self._ledger = ledger
        self._prompts = prompts
        self._decode = decode
        self._emit = emit
        self._clock = clock
        self._open: dict[int, _Open] = {}
        self._resending = Resending(fleet, max_deaths=job.recovery.max_deaths)
        self._quarantined_rows = {_row(prompt_id) for prompt_id in ledger.history.quarantined}
        self._invalid_rate = InvalidRate(
            max_rate=job.reward_server.max_invalid_rate, window=job.reward_server.invalid_window
        )
        self._dropped_in_a_row: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._head: asyncio.Task[None] | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._next_request_id = 0
        self.buffer = Buffer(
            prompts_per_step=job.train.prompts_per_step,
            max_staleness=job.train.max_staleness,
            first_step=ledger.history.step,
            num_steps=job.train.num_steps,
        )
        self._go_on()

    async def gather(self, on_head: OnHead | None = None) -> tuple[RolloutGroup, ...]:
        """The next batch of groups, as soon as the oldest ones are all complete; then send out what fits meanwhile.
        Until then `on_head` is called with those that it is sure to begin with, one call at a time."""
        num_seen = 0
        self._begin_feeding()
        while (groups := self.buffer.take()) is None:
            self.raise_if_hopeless()
            if self._feeding is None:
                self.feed()
            if (num_ready := self.buffer.num_ready) >= self.buffer.prompts_per_step:
                continue
            if on_head and num_ready > num_seen and (self._head is None or self._head.done()):
                num_seen = num_ready
                self._head = self._spawn(on_head(self.buffer.ready()))
            await self.fleet.news()
        for group in groups:
            del self._open[group.request_id]
        self.feed()
        return groups

    def line(self) -> BufferSnapshot:
        return self.buffer.snapshot()

    def take_tally(self) -> Tally:
        tally, self.tally = self.tally, Tally(was_paused=self.paused)
        return tally

    def pause(self) -> None:
        self.paused = self.tally.was_paused = True

    def go_on(self) -> None:
        self.paused = False
        self.fleet.changed.set()

    def feed(self) -> None:
        """Send out what was lost with its worker, then as many new prompts as the buffer has room for."""
        for worker_id, request_id in self._resending.placements(self._least_version):
            entry = self._open[request_id]
            self._send(worker_id, [entry])
        if self.paused or self.fleet.failure is not None:
            return
        for share in self.fleet.roster.assign(capacity=self.buffer.capacity):
            entries = [self._next_entry(share.version) for _ in range(share.num_prompts)]
            self._send(share.worker_id, entries)

    def arrived(self, worker_id: str, groups: Sequence[RolloutGroup]) -> None:
        """Groups of a worker; one that another worker was quicker with is passed over."""
        fresh = []
        now_s = self._clock.monotonic()
        for group in groups:
            entry = self._open.get(group.request_id)
            self._resending.finished(group.request_id)
            if entry is None or entry.arrived:
                continue
            entry.arrived = True
            entry.holders.clear()
            entry.workers.add(worker_id)
            self.tally.num_tokens += group.num_tokens
            self.tally.longest_s = max(self.tally.longest_s, now_s - entry.sent_s)
            fresh.append(group)
        if fresh:
            self._spawn(self._fill(fresh))
        self.fleet.changed.set()

    def returned(self, worker_id: str, requests: Sequence[RolloutRequest], error: Exception | None) -> None:
        """Requests that `worker_id` will not answer go out again, those that workers die of excepted."""
        mine = [r for r in requests if (entry := self._open.get(r.request_id)) and not entry.arrived]
        if not mine:
            return
        self._ledger.lost([r.request_id for r in mine], worker_id=worker_id, reason=str(error or "drained"))
        for request in mine:
            entry = self._open[request.request_id]
            entry.holders.discard(worker_id)
            if request.begun is not None and request.begun.num_tokens:
                entry.workers.add(worker_id)
                entry.request = request
        verdict = self._resending.returned([r.request_id for r in mine], error)
        for request_id, evidence in verdict.quarantined:
            self._quarantine(request_id, evidence)
        for request in mine:
            if (entry := self._open.get(request.request_id)) and not entry.holders:
                self._resending.add(request.request_id)
        self.fleet.changed.set()

    def hedge(self, worker_id: str, requests: Sequence[RolloutRequest]) -> None:
        """Send what a silent worker holds to others too; the first answer counts."""
        for request in requests:
            entry = self._open.get(request.request_id)
            if entry is not None and not entry.arrived and entry.holders == {worker_id}:
                self._resending.add(request.request_id, avoid=worker_id)
        self.fleet.changed.set()

    def raise_if_hopeless(self) -> None:
        """Raise what makes any further wait pointless."""
        if (failure := self._failure or self.fleet.failure) is not None:
            raise failure
        self.fleet.pool.raise_if_unserved()
        if (num_dropped := self._dropped_in_a_row.total()) >= self.job.limits.dropped_groups:
            reasons = ", ".join(f"{reason} {number} times" for reason, number in self._dropped_in_a_row.most_common())
            raise DataError(
                f"{num_dropped} groups in a row teach nothing ({reasons}; zero_variance: all completions of a prompt "
                "get the same reward). Check the rewards with `rlhf eval`, raise rollout.temperature, or use easier or "
                "harder prompts (limits.dropped_groups is the bound)"
            )

    def waiting_for(self) -> str:
        """What the next batch waits for, in words."""
        request_id = self.buffer.waiting_for
        if request_id is None:
            return "nothing is under way"
        entry = self._open[request_id]
        if entry.arrived:
            return f"prompt {request_id} to be scored"
        where = " and ".join(sorted(entry.holders)) or "a worker that can take it"
        return f"prompt {request_id} on {where}" if entry.holders else f"prompt {request_id} waits for {where}"

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _go_on(self) -> None:
        """Take up what the ledger knows to be under way.

        A synchronous job generates its step anew as a whole: it then computes what it would have computed without the
        interruption, while a step of which only the missing groups are generated would not, because what an engine
        computes in the last bits depends on what it computes together. An asynchronous job keeps every complete group.
        """
        history = self._ledger.history
        keeps = self.job.train.max_staleness > 0
        kept = {i: group for i in history.completed_unaccepted if keeps and (group := self._ledger.group(i))}
        begun_again = [i for i in history.outstanding if i not in kept]
        if not keeps:
            begun_again = sorted({*begun_again, *history.dropped_since_last_accept})
        self._ledger.opened(history.step, restarted=begun_again)
        self._next_request_id = history.next_request_id
        if not keeps:
            self._next_request_id = min([*begun_again, history.next_request_id])
            return
        for request_id in sorted([*kept, *begun_again]):
            oldest = min(history.step, self._oldest(kept.get(request_id)))
            entry = self._enter(request_id, self._prompts[request_id], version=oldest)
            if request_id in kept:
                entry.arrived = True
                self.buffer.complete(kept[request_id])
            else:
                self._resending.add(request_id)

    def _begin_feeding(self) -> None:
        """From the first `gather` on, an asynchronous job's workers get prompts whatever the driver waits for: a slot
        that falls free while the learner learns would stay empty until it is done. In a synchronous job nothing may go
        out then, and an evaluation has the workers for itself."""
        if self._feeding is None and self.job.train.max_staleness > 0:
            self._feeding = self._spawn(self._keep_fed())

    async def _keep_fed(self) -> None:
        while True:
            self.feed()
            await self.fleet.news()

    def _oldest(self, group: RolloutGroup | None) -> int:
        return self._ledger.history.step if group is None or not group.num_tokens else group.oldest_version

    def _next_entry(self, version: int) -> _Open:
        while True:
            request_id = self._next_request_id
            self._next_request_id += 1
            prompt = self._prompts[request_id]
            if _row(prompt.prompt_id) not in self._quarantined_rows:
                return self._enter(request_id, prompt, version=version)
            self._ledger.dropped(request_id, prompt_id=prompt.prompt_id, reason=Dropped.QUARANTINED)

    def _enter(self, request_id: int, prompt: Prompt, *, version: int) -> _Open:
        request = RolloutRequest(
            request_id=request_id,
            prompt=prompt,
            num_completions=self.job.train.completions_per_prompt,
            sampling=self.job.rollout.sampling,
            seed=request_seed(self.job.seed, request_id),
        )
        self.buffer.dispatch(request_id, version=version)
        entry = self._open[request_id] = _Open(request)
        return entry

    def _send(self, worker_id: str, entries: Sequence[_Open]) -> None:
        requests = [entry.request for entry in entries]
        now_s = self._clock.monotonic()
        for entry in entries:
            entry.holders.add(worker_id)
            entry.sent_s = now_s
        version = self.fleet.version_of(worker_id)
        self._ledger.dispatched([r.request_id for r in requests], worker_id=worker_id, version=version)
        self.fleet.send(worker_id, requests, self)

    def _least_version(self, request_id: int) -> int | None:
        """That a worker must serve to take this request over; None when nobody needs to any more."""
        entry = self._open.get(request_id)
        return None if entry is None or entry.arrived else self.buffer.version_of(request_id)

    async def _fill(self, groups: Sequence[RolloutGroup]) -> None:
        """Fill the columns that the algorithm needs, and tell the buffer."""
        groups = [replace(group, texts=tuple(self._decode(group.completions()))) for group in groups]
        scored = await self._outlived(self._scoring.rewarded, groups)
        kept: Sequence[RolloutGroup] = [group for group in map(self._valid, scored) if group is not None]
        if "reference" in self.job.algorithm.needs:
            kept = await self._outlived(self._scoring.referenced, kept)
        for group in kept:
            self._ledger.completed(group, workers=sorted(self._open[group.request_id].workers))
            self.buffer.complete(group)
            self._dropped_in_a_row.clear()
        self.fleet.changed.set()

    async def _outlived(self, score: Score, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        """`score(groups)`, those left out that servers die of."""
        while groups:
            try:
                return await score(groups)
            except DeadlyGroup as error:
                self._quarantine(error.group.request_id, error.evidence)
                groups = [group for group in groups if group.request_id != error.group.request_id]
        return ()

    def _valid(self, group: RolloutGroup) -> RolloutGroup | None:
        """The group without failures, or None when it teaches nothing and another prompt takes its place."""
        self._invalid_rate.observe(group)
        self.tally.num_completions += group.num_completions
        self.tally.num_invalid += len({failure.completion for failure in group.invalid})
        where = {"time_s": self._clock.time(), "step": self.buffer.next_step, "request_id": group.request_id}
        for failure in group.invalid:
            self._emit(RewardFailed(**where, prompt_id=group.prompt.prompt_id, invalid=failure))
        self._invalid_rate.check()
        valid = group.valid_only()
        if reason := self.job.algorithm.drop_reason(valid):
            self.tally.num_dropped += 1
            self._dropped_in_a_row[reason] += 1
            self._emit(GroupDropped(**where, prompt_id=group.prompt.prompt_id, reason=reason))
            self._drop(group.request_id, reason)
            return None
        return valid

    def _quarantine(self, request_id: int, evidence: Sequence[str]) -> None:
        """Leave the prompt out from now on, in later epochs too."""
        prompt_id = self._open[request_id].request.prompt.prompt_id
        self._quarantined_rows.add(_row(prompt_id))
        self._emit(
            PromptQuarantined(
                time_s=self._clock.time(),
                step=self.buffer.next_step,
                request_id=request_id,
                prompt_id=prompt_id,
                evidence=tuple(evidence),
            )
        )
        self._drop(request_id, Dropped.QUARANTINED)

    def _drop(self, request_id: int, reason: str) -> None:
        entry = self._open.pop(request_id)
        self.buffer.drop(request_id, reason=reason)
        self._ledger.dropped(request_id, prompt_id=entry.request.prompt.prompt_id, reason=reason)
        self.fleet.changed.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failure = self._failure or error
        self.fleet.changed.set()


def _row(prompt_id: str) -> str:
    """`"<row>/<epoch>"` -> row."""
    return prompt_id.partition("/")[0]


def request_seed(job_seed: int, request_id: int) -> int:
    """63 bits that depend on nothing but the job's seed and the request."""
    return int(np.random.SeedSequence([job_seed, request_id]).generate_state(1, np.uint64)[0] >> 1)
