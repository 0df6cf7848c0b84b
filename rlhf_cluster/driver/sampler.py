"""Completions of prompts that are not trained on: for evaluations, preference pairs, revisions.

consumes     requests, so many ahead of what is handed on as the window allows
produces     their groups with texts, in the order of the requests
waits for    the oldest request that is out
unblocked by an answer; a worker that joins, is lost or is drained, and then others answer what it held
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import chain

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.fleet import Fleet
from rlhf_cluster.driver.resending import DEADLY
from rlhf_cluster.driver.rollouts import Decode, request_seed
from rlhf_cluster.errors import RoleDied
from rlhf_cluster.flow.suspects import Suspects
from rlhf_cluster.records import Prompt, RolloutGroup, RolloutRequest, Sampling

WINDOW_COMPLETIONS = 512
"""Completions a rollout worker that may be under way or wait for older ones: twice what an engine runs at a time."""

Quarantine = Callable[[Prompt, tuple[str, ...]], None]
"""Told of a prompt that workers died of, with one line of evidence for each; it is left out of the answer."""


class Sampler:
    """One for each driver. Draws depend on the job's seed and the request alone, not on who draws or when."""

    def __init__(self, job: JobConfig, fleet: Fleet, *, decode: Decode) -> None:
        self._job = job
        self._fleet = fleet
        self._decode = decode

    @property
    def fingerprint(self) -> str:
        """Of the weights that answer now."""
        return self._fleet.newest.manifest.fingerprint if self._fleet.newest else ""

    def request(self, number: int, prompt: Prompt, *, num_completions: int, sampling: Sampling) -> RolloutRequest:
        """`number` seeds the draw. Whoever samples for another purpose numbers from another offset, so that no two
        share their random numbers."""
        return RolloutRequest(
            request_id=number,
            prompt=prompt,
            num_completions=num_completions,
            sampling=sampling,
            seed=request_seed(self._job.seed, number),
        )

    def sampling(self, *, temperature: float) -> Sampling:
        """As the job's rollout workers draw in training, but for the temperature."""
        rollout = self._job.rollout
        return Sampling(
            max_new_tokens=rollout.max_new_tokens, temperature=temperature, top_p=rollout.top_p, top_k=rollout.top_k
        )

    async def sample(
        self,
        prompts: Sequence[Prompt],
        *,
        num_completions: int,
        sampling: Sampling,
        seed_offset: int,
        check: Callable[[], None] = lambda: None,
    ) -> list[RolloutGroup]:
        """All at once, in the order of the prompts; for sets that fit in memory. Raises `RoleDied` for a prompt that
        workers die of, and what `check` raises, which is called at every look."""
        requests = [
            self.request(seed_offset + number, prompt, num_completions=num_completions, sampling=sampling)
            for number, prompt in enumerate(prompts)
        ]
        async with aclosing(self._answers(requests, window=len(requests), quarantine=None, check=check)) as answers:
            return [group async for groups in answers for group in groups]

    async def stream(
        self, requests: Iterable[RolloutRequest], *, quarantine: Quarantine
    ) -> AsyncGenerator[list[RolloutGroup]]:
        """As many groups as are complete at the head of the order, again and again; `requests` is read as room comes.

        Workers go on with what is out while the reader is busy with what it got. Close it (`aclosing`) when leaving
        early.
        """
        requests = iter(requests)
        if (first := next(requests, None)) is None:
            return
        window = max(1, WINDOW_COMPLETIONS * self._job.rollout.num_workers // first.num_completions)
        every = chain([first], requests)
        async with aclosing(self._answers(every, window=window, quarantine=quarantine, check=lambda: None)) as answers:
            async for groups in answers:
                yield groups

    async def _answers(
        self,
        requests: Iterable[RolloutRequest],
        *,
        window: int,
        quarantine: Quarantine | None,
        check: Callable[[], None],
    ) -> AsyncGenerator[list[RolloutGroup]]:
        exam = _Exam(
            self._fleet, requests, window=window, max_deaths=self._job.recovery.max_deaths, quarantine=quarantine
        )
        while True:
            check()
            exam.raise_if_hopeless()
            groups = exam.take()
            exam.send()
            if groups:
                yield [replace(group, texts=tuple(self._decode(group.completions()))) for group in groups]
            elif exam.is_done:
                return
            else:
                await self._fleet.news()


class _Exam:
    """Requests that are dealt to all workers evenly; an `Owner` of the fleet."""

    def __init__(
        self,
        fleet: Fleet,
        requests: Iterable[RolloutRequest],
        *,
        window: int,
        max_deaths: int,
        quarantine: Quarantine | None,
    ) -> None:
        self._fleet = fleet
        self._coming = iter(requests)
        self._window = window
        self._suspects = Suspects(max_deaths=max_deaths)
        self._quarantine = quarantine
        self._poison: RoleDied | None = None
        self._order: deque[int] = deque()
        """Request ids that are not handed on yet, oldest first; at most `window`."""
        self._unsent: list[RolloutRequest] = []
        self._groups: dict[int, RolloutGroup | None] = {}
        """Of `_order`, those that are answered; None for a prompt in quarantine."""

    @property
    def is_done(self) -> bool:
        """Everything has come, gone out and been handed on; true only after `send` has looked for more."""
        return not self._order

    def raise_if_hopeless(self) -> None:
        if (failure := self._poison or self._fleet.failure) is not None:
            raise failure
        self._fleet.pool.raise_if_unserved()

    def take(self) -> list[RolloutGroup]:
        """What is complete at the head of the order."""
        ready = []
        while self._order and self._order[0] in self._groups:
            group = self._groups.pop(self._order.popleft())
            ready += [] if group is None else [group]
        return ready

    def send(self) -> None:
        """Once all workers serve the newest version, which is the one to answer; in an asynchronous job some may still
        be adopting it."""
        self._fill_window()
        workers = self._fleet.serving()
        if not (workers and self._unsent and all(map(self._fleet.holds_newest, workers))):
            return
        ready = [each for each in self._unsent if not self._suspects.is_isolated(each.request_id)]
        if not ready and not self._num_out:
            # Those that workers died of go out one by one, so that it shows which it is.
            ready = self._unsent[:1]
        sent = {each.request_id for each in ready}
        self._unsent = [each for each in self._unsent if each.request_id not in sent]
        for worker_id, share in self._dealt(ready, workers).items():
            self._fleet.send(worker_id, share, self)

    def arrived(self, worker_id: str, groups: Sequence[RolloutGroup]) -> None:
        for group in groups:
            self._groups.setdefault(group.request_id, group)
            self._suspects.finished(group.request_id)
        self._fleet.changed.set()

    def returned(self, worker_id: str, requests: Sequence[RolloutRequest], error: Exception | None) -> None:
        open_ones = {request.request_id: request for request in requests if request.request_id not in self._groups}
        self._unsent += open_ones.values()
        if isinstance(error, DEADLY):
            for request_id, evidence in self._suspects.worker_lost(list(open_ones), str(error)).quarantined:
                self._condemn(open_ones[request_id], evidence)
        self._fleet.changed.set()

    def hedge(self, worker_id: str, requests: Sequence[RolloutRequest]) -> None:
        """These can wait until the worker goes on or is taken for hung."""

    @property
    def _num_out(self) -> int:
        return len(self._order) - len(self._groups) - len(self._unsent)

    def _fill_window(self) -> None:
        while len(self._order) < self._window and (request := next(self._coming, None)) is not None:
            self._order.append(request.request_id)
            self._unsent.append(request)

    def _dealt(self, requests: Sequence[RolloutRequest], workers: Sequence[str]) -> dict[str, list[RolloutRequest]]:
        """Each to the worker that holds least by then."""
        loads = {worker_id: self._fleet.num_held(worker_id) for worker_id in workers}
        shares: dict[str, list[RolloutRequest]] = {}
        for request in requests:
            least = min(loads, key=loads.__getitem__)
            loads[least] += 1
            shares.setdefault(least, []).append(request)
        return shares

    def _condemn(self, request: RolloutRequest, evidence: tuple[str, ...]) -> None:
        prompt = request.prompt
        if self._quarantine is None:
            self._poison = RoleDied(f"the evaluation prompt {prompt.prompt_id} kills workers: {'; '.join(evidence)}")
            return
        self._unsent = [each for each in self._unsent if each.request_id != request.request_id]
        self._groups[request.request_id] = None
        self._quarantine(prompt, evidence)
