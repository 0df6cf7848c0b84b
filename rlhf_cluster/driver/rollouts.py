"""Keeps the rollout workers busy: prompts go out while there is room, filled groups come in and wait for their batch.

consumes     prompts of the stream, as many as the buffer has room for
produces     groups with texts, rewards and whatever else the algorithm needs, oldest first
waits for    rollout workers, reward servers, reference scorers; each wait bounded
unblocked by a group that arrives, one that is dropped, a batch that is taken, a version that is adopted
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.data.stream import PromptStream, StreamState
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.errors import DataError, RoleError
from rlhf_cluster.flow.buffer import Buffer
from rlhf_cluster.flow.invalid_rate import InvalidRate
from rlhf_cluster.flow.routing import WorkerView, assign
from rlhf_cluster.records import RolloutGroup, RolloutRequest
from rlhf_cluster.records.events import Event, GroupDropped, RewardFailed
from rlhf_cluster.runtime.bounds import each_within, within
from rlhf_cluster.runtime.roles import Roles

Decode = Callable[[Sequence[np.ndarray]], list[str]]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came in since the last batch."""

    num_tokens: int = 0
    num_completions: int = 0
    num_invalid: int = 0
    num_dropped: int = 0


class Rollouts:
    """One per job; lives in the driver's event loop and nowhere else, so it needs no locks."""

    def __init__(
        self,
        job: JobConfig,
        roles: Roles,
        *,
        prompts: PromptStream,
        decode: Decode,
        emit: Callable[[Event], None],
        clock: Clock,
        first_step: int = 0,
        first_request_id: int = 0,
    ) -> None:
        self.job = job
        self.roles = roles
        self.buffer = Buffer(
            prompts_per_step=job.train.prompts_per_step,
            max_staleness=job.train.max_staleness,
            first_step=first_step,
            num_steps=job.train.num_steps,
        )
        self.tally = Tally()
        self._prompts = prompts
        self._decode = decode
        self._emit = emit
        self._clock = clock
        self._next_request_id = first_request_id
        self._positions: dict[int, StreamState] = {}
        self._versions = dict.fromkeys(roles.rollout_workers, -1)
        self._in_flight = dict.fromkeys(roles.rollout_workers, 0)
        self._invalid_rate = InvalidRate(
            max_rate=job.reward_server.max_invalid_rate, window=job.reward_server.invalid_window
        )
        self._turns = count()
        self._dropped_in_a_row: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()

    async def gather(self) -> tuple[RolloutGroup, ...]:
        """The next batch of groups, as soon as the oldest ones are all complete; then send out what fits meanwhile."""
        while (groups := self.buffer.take()) is None:
            self._raise_if_hopeless()
            self.feed()
            # Without a task under way nothing would ever set the event.
            assert self._tasks, f"no batch to take and nothing under way: {self.buffer.snapshot()}"
            self._changed.clear()
            await self._changed.wait()
        self.feed()
        oldest, _ = self.position()
        self._positions = {request_id: at for request_id, at in self._positions.items() if request_id >= oldest}
        return groups

    def take_tally(self) -> Tally:
        tally, self.tally = self.tally, Tally()
        return tally

    def adopted(self, worker_id: str, version: int) -> None:
        """`worker_id` proved that it serves `version`."""
        self._versions[worker_id] = version

    def feed(self) -> None:
        """Send out as many prompts as the buffer has room for, one message a worker."""
        workers = [
            WorkerView(worker_id=worker_id, version=version, num_in_flight=self._in_flight[worker_id])
            for worker_id, version in self._versions.items()
        ]
        capacities = {version: self.buffer.capacity(version) for version in self._versions.values()}
        for share in assign(workers, num_wanted=max(capacities.values()), capacities=capacities):
            requests = [self._next_request() for _ in range(share.num_prompts)]
            for request in requests:
                self.buffer.dispatch(request.request_id, version=share.version)
            self._in_flight[share.worker_id] += share.num_prompts
            self._spawn(self._generate(share.worker_id, requests))

    def position(self) -> tuple[int, StreamState]:
        """Where a resumed job goes on: the oldest request not yet trained on, and its prompt's place in the stream."""
        oldest = self.buffer.oldest_outstanding
        if oldest is None:
            return self._next_request_id, self._prompts.state()
        return oldest, self._positions[oldest]

    def _next_request(self) -> RolloutRequest:
        request_id = self._next_request_id
        self._next_request_id += 1
        self._positions[request_id] = self._prompts.state()
        return RolloutRequest(
            request_id=request_id,
            prompt=next(self._prompts),
            num_completions=self.job.train.completions_per_prompt,
            sampling=self.job.rollout.sampling,
            seed=request_seed(self.job.seed, request_id),
        )

    async def _generate(self, worker_id: str, requests: Sequence[RolloutRequest]) -> None:
        stream = self.roles.rollout_workers[worker_id].run(requests)
        where = {"role": "rollout worker", "worker_id": worker_id, "activity": f"generating {len(requests)} groups"}
        num_missing = len(requests)
        async for groups in each_within(self.job.limits.generate_s, stream, **where):
            num_missing -= len(groups)
            self._in_flight[worker_id] -= len(groups)
            self.tally.num_tokens += sum(group.num_tokens for group in groups)
            self._spawn(self._fill(groups))
        if num_missing:
            raise RoleError(
                f"rollout worker {worker_id} ended its answer with {num_missing} of {len(requests)} groups missing",
                **where,
            )

    async def _fill(self, groups: Sequence[RolloutGroup]) -> None:
        """Fill the columns that the algorithm needs, and tell the buffer."""
        groups = [replace(group, texts=tuple(self._decode(group.completions()))) for group in groups]
        if self.job.rewards:
            groups = await self._score(groups)
        kept = [group for group in map(self._valid, groups) if group is not None]
        if kept and "reference" in self.job.algorithm.needs:
            worker_id, scorer = self._next_of(self.roles.reference_scorers)
            where = {"role": "reference scorer", "worker_id": worker_id, "activity": "scoring"}
            kept = await within(self.job.limits.score_s, scorer.logprobs(kept), **where)
        for group in kept:
            self.buffer.complete(group)
            self._dropped_in_a_row.clear()
        if len(kept) < len(groups):
            self.feed()
        self._changed.set()

    async def _score(self, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        worker_id, server = self._next_of(self.roles.reward_servers)
        where = {"role": "reward server", "worker_id": worker_id, "activity": f"scoring {len(groups)} groups"}
        return await within(self.job.limits.score_s, server.score(groups), **where)

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
            self.buffer.drop(group.request_id, reason=reason)
            return None
        return valid

    def _next_of(self, roles: dict[str, Any]) -> tuple[str, Any]:
        names = list(roles)
        name = names[next(self._turns) % len(names)]
        return name, roles[name]

    def _raise_if_hopeless(self) -> None:
        if self._failure is not None:
            raise self._failure
        if (num_dropped := self._dropped_in_a_row.total()) >= self.job.limits.dropped_groups:
            reasons = ", ".join(f"{reason} {number} times" for reason, number in self._dropped_in_a_row.most_common())
            raise DataError(
                f"{num_dropped} groups in a row teach nothing ({reasons}; zero_variance: all completions of a prompt "
                "get the same reward). Check the rewards with `rlhf eval`, raise rollout.temperature, or use easier or "
                "harder prompts (limits.dropped_groups is the bound)"
            )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failure = self._failure or error
        self._changed.set()

    async def aclose(self) -> None:
        """Cancel what is under way; workers abort the requests of a stream that nobody reads."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def request_seed(job_seed: int, request_id: int) -> int:
    """63 bits that depend on nothing but the job's seed and the request."""
    return int(np.random.SeedSequence([job_seed, request_id]).generate_state(1, np.uint64)[0] >> 1)
