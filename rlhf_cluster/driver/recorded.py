"""Batches out of recorded data: demonstrations and preferences, in the order of their stream, each in one batch.

consumes     examples of the stream, by number
produces     groups with every column that the algorithm needs, each in the ledger before it is handed out; drops those
             that teach nothing, with the reason
waits for    the reference scorers, which score a batch ahead while the learner learns; bounded there
unblocked by their answer; `go_on` of a job that is paused

An example's number in the stream is its request's id, so the ledger alone says where a resumed job goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.feed import OnHead, Tally
from rlhf_cluster.driver.scoring import DeadlyGroup, Scoring
from rlhf_cluster.errors import DataError, RoleDied
from rlhf_cluster.flow.buffer import BufferSnapshot
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.records.events import Event, GroupDropped

if TYPE_CHECKING:
    from rlhf_cluster.driver.ledger.ledger import Ledger
    from rlhf_cluster.driver.ledger.reference_log import ReferenceLog

SOURCE = "data"
"""Stands in the ledger where the worker's name stands of what was generated."""


class Examples(Protocol):
    """`examples[n]` is the n-th, from 0 and without end: a pure function of the job's data and seed."""

    def __getitem__(self, number: int) -> RolloutGroup: ...

    @property
    def num_rows(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A batch that is ready, and what was passed over on the way to it."""

    groups: tuple[RolloutGroup, ...]
    scored: Mapping[str, np.ndarray]
    """By row, what the reference was asked for the sake of this batch."""
    dropped: tuple[tuple[RolloutGroup, str], ...]
    next_number: int


class Recorded:
    """One per job; lives in the driver's event loop and nowhere else. A `Feed`."""

    def __init__(
        self,
        job: JobConfig,
        scoring: Scoring,
        *,
        ledger: Ledger,
        examples: Examples,
        known: ReferenceLog | None = None,
        emit: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        """`known` is where the reference's answers are kept for later epochs; without it each is asked for anew."""
        self.job = job
        self.paused = False
        self._scoring = scoring
        self._ledger = ledger
        self._examples = examples
        self._known = known
        self._emit = emit
        self._clock = clock
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()
        self._tally = Tally()
        self._num_dropped: Counter[str] = Counter()
        self._step = ledger.history.step
        self._ahead: asyncio.Task[_Ahead] | None = None
        self._next = self._go_on()

    async def gather(self, on_head: OnHead | None = None) -> tuple[RolloutGroup, ...]:
        """The next batch; the one after it is made ready while this one is learned. It is complete at once, so nothing
        is gained by learning its head early."""
        await self._may_go_on.wait()
        ahead = await (self._ahead or self._prepare(self._next))
        if self._known is not None:
            self._known.keep(ahead.scored)
        for group, reason in ahead.dropped:
            self._drop(group, reason)
        ids = [group.request_id for group in ahead.groups]
        self._ledger.dispatched(ids, worker_id=SOURCE, version=self._step)
        for group in ahead.groups:
            self._ledger.completed(group, workers=[SOURCE])
        self._step, self._next = self._step + 1, ahead.next_number
        self._tally.num_completions += sum(group.num_completions for group in ahead.groups)
        self._tally.num_tokens += sum(group.num_tokens for group in ahead.groups)
        self._ahead = None
        if self._step < self.job.train.num_steps:
            self._ahead = asyncio.create_task(self._prepare(self._next))
        return ahead.groups

    def pause(self) -> None:
        self.paused = self._tally.was_paused = True
        self._may_go_on.clear()

    def go_on(self) -> None:
        self.paused = False
        self._may_go_on.set()

    def take_tally(self) -> Tally:
        tally, self._tally = self._tally, Tally(was_paused=self.paused)
        return tally

    def line(self) -> BufferSnapshot:
        is_ready = self._ahead is not None and self._ahead.done()
        return BufferSnapshot(
            next_step=self._step,
            num_in_flight=0 if self._ahead is None or is_ready else self.job.train.prompts_per_step,
            num_complete=self.job.train.prompts_per_step if is_ready else 0,
            num_ready=self.job.train.prompts_per_step if is_ready else 0,
            waiting_for=None,
            num_dispatched=self._next,
            num_taken=self._next - self._num_dropped.total(),
            num_dropped=dict(self._num_dropped),
        )

    def waiting_for(self) -> str:
        return "nothing is under way" if self._ahead is None or self._ahead.done() else "the next batch to be scored"

    def raise_if_hopeless(self) -> None:
        """Nothing can be: what fails is raised by `gather`."""

    async def aclose(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
        if self._known is not None:
            self._known.close()

    def _go_on(self) -> int:
        """The number of the first example that is in no batch yet; what a former driver had begun with begins anew."""
        history = self._ledger.history
        begun_again = sorted({*history.outstanding, *history.dropped_since_last_accept})
        self._ledger.opened(history.step, restarted=begun_again)
        return min([*begun_again, history.next_request_id])

    async def _prepare(self, number: int) -> _Ahead:
        """The batch that begins at example `number`."""
        chosen: list[RolloutGroup] = []
        dropped: list[tuple[RolloutGroup, str]] = []
        while len(chosen) < self.job.train.prompts_per_step:
            group = self._examples[number]
            number += 1
            if reason := self.job.algorithm.drop_reason(group):
                dropped.append((group, reason))
                if len(dropped) >= self._most_dropped:
                    raise self._nothing_to_learn(dropped)
            else:
                chosen.append(group)
        scored = await self._scored(chosen) if "reference" in self.job.algorithm.needs else {}
        return _Ahead(
            groups=tuple(self._with_reference(group, scored) for group in chosen),
            scored=scored,
            dropped=tuple(dropped),
            next_number=number,
        )

    async def _scored(self, groups: Sequence[RolloutGroup]) -> dict[str, np.ndarray]:
        """The reference's log-probabilities of the rows that are not known, each asked for once."""
        unknown = {
            _row(group): group for group in groups if self._known is None or self._known.get(_row(group)) is None
        }
        try:
            answers = await self._scoring.referenced(list(unknown.values()))
        except DeadlyGroup as error:
            raise RoleDied(f"example {error.group.prompt.prompt_id} kills reference scorers: {error}") from error
        found: dict[str, np.ndarray] = {}
        for row, answer in zip(unknown, answers, strict=True):
            assert answer.reference_logprobs is not None, "the scorer fills the column"
            found[row] = answer.reference_logprobs
        return found

    def _with_reference(self, group: RolloutGroup, scored: Mapping[str, np.ndarray]) -> RolloutGroup:
        found = scored.get(_row(group))
        if found is None and self._known is not None:
            found = self._known.get(_row(group))
        return group if found is None else replace(group, reference_logprobs=found)

    def _drop(self, group: RolloutGroup, reason: str) -> None:
        prompt_id = group.prompt.prompt_id
        self._num_dropped[reason] += 1
        self._tally.num_dropped += 1
        self._emit(
            GroupDropped(
                time_s=self._clock.time(),
                step=self._step,
                request_id=group.request_id,
                prompt_id=prompt_id,
                reason=reason,
            )
        )
        self._ledger.dropped(group.request_id, prompt_id=prompt_id, reason=reason)

    @property
    def _most_dropped(self) -> int:
        """On the way to one batch: past a whole epoch there is nothing left that was not seen."""
        return max(self.job.limits.dropped_groups, self._examples.num_rows)

    def _nothing_to_learn(self, dropped: list[tuple[RolloutGroup, str]]) -> DataError:
        reasons = Counter(reason for _, reason in dropped)
        told = ", ".join(f"{reason} {number} times" for reason, number in reasons.most_common())
        return DataError(
            f"{len(dropped)} examples of data.train on the way to one batch teach nothing ({told}): check the columns "
            "of the source, or choose another algorithm"
        )


def _row(group: RolloutGroup) -> str:
    """`"<row>/<epoch>"` -> row."""
    return group.prompt.prompt_id.partition("/")[0]
