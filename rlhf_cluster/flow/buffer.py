"""Where every dispatched prompt is until a step takes it, and the one place that bounds staleness.

A prompt holds a slot from `dispatch` until `take` or `drop`. Live requests stand in a line in dispatch order; a step
takes the first `prompts_per_step` once all of those are complete, and nothing younger ever overtakes. No IO, no clock.

Why no batch is staler than `max_staleness`. Write B for prompts_per_step, s for max_staleness, n for the number of
batches taken so far; the step that takes the next batch trains version n. A request with p live requests ahead of it
will be taken by step n + p // B at the latest:

- a take moves it B places forward and raises n by one, which leaves that step the same;
- a drop ahead of it moves it forward, which makes the step the same or earlier;
- a dispatch, a completion, or a worker that takes a request over from a lost one moves nobody.

Its worker served version v when it was dispatched, and a worker's version only grows, also in the middle of a group,
so the oldest token of the group is of version v or later, and its staleness is at most n + p // B - v as they were on
dispatch. `capacity(v)` admits it only while p < B * (v + s + 1 - n), which is the same as n + p // B - v <= s. Workers
may therefore serve different versions: each is admitted against its own.

The usual rule (dispatched minus trained < B * (s + 1)) bounds how many are ahead but lets a long group be overtaken,
so the group itself can become arbitrarily stale. Here the young wait for the old instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_cluster.records import RolloutGroup


class IllegalTransition(AssertionError):
    """A bug of ours in the order of events, never a condition of the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferSnapshot:
    """Where the prompts are; the totals count since this buffer was made."""

    next_step: int
    """The step that takes the next batch: steps already handed to the learner."""
    num_in_flight: int
    """Being generated or scored."""
    num_complete: int
    """Waiting to be taken."""
    num_ready: int
    """Of those, how many stand at the head of the line with nothing unfinished before them."""
    waiting_for: int | None
    """Request id of the oldest one in flight: what the line waits for."""
    num_dispatched: int
    num_taken: int
    num_dropped: Mapping[str, int]
    """By reason."""


@dataclass(slots=True)
class _Slot:
    version: int
    group: RolloutGroup | None = None


class Buffer:
    """`dispatch` -> `complete` -> `take`, or `dispatch` -> `drop`. Every other order raises `IllegalTransition`."""

    def __init__(
        self, *, prompts_per_step: int, max_staleness: int, first_step: int = 0, num_steps: int | None = None
    ) -> None:
        """`first_step` is where a resumed job goes on. With `num_steps`, the job's total, nothing is admitted that no
        step would take."""
        if prompts_per_step < 1 or max_staleness < 0:
            raise ValueError(
                f"prompts_per_step = {prompts_per_step} must be at least 1, max_staleness = {max_staleness} at least 0"
            )
        self.prompts_per_step = prompts_per_step
        self.max_staleness = max_staleness
        self.num_steps = num_steps
        self._next_step = first_step
        self._slots: dict[int, _Slot] = {}
        # The same requests in dispatch order, and how many at its head are complete: kept, not counted, because it is
        # asked after every group.
        self._line: list[int] = []
        self._num_ready = 0
        self._num_complete = 0
        self._last_id = -1
        self._num_dispatched = 0
        self._num_taken = 0
        self._num_dropped: Counter[str] = Counter()

    @property
    def next_step(self) -> int:
        """The step that takes the next batch."""
        return self._next_step

    @property
    def num_outstanding(self) -> int:
        """Slots held: requests dispatched and neither taken nor dropped."""
        return len(self._slots)

    @property
    def num_ready(self) -> int:
        """Complete groups at the head of the line with nothing unfinished before them."""
        return self._num_ready

    @property
    def num_complete(self) -> int:
        """Complete groups that wait to be taken."""
        return self._num_complete

    @property
    def waiting_for(self) -> int | None:
        """Request id of the oldest one in flight: what the line waits for."""
        return self._line[self._num_ready] if self._num_ready < len(self._line) else None

    def version_of(self, request_id: int) -> int:
        """The version that the request was first dispatched to. Whoever takes it over must serve this or a later one:
        then its oldest token is no older than the proof assumes, and its place in the line stays."""
        return self._in_flight(request_id).version

    def capacity(self, version: int) -> int:
        """How many prompts may be dispatched now to workers serving `version`: see the proof above.

        `prompts_per_step * (max_staleness + 1 - (next_step - version)) - num_outstanding`, at least 0.
        """
        if version < 0:
            return 0
        num_batches = self.max_staleness + 1 - (self._next_step - version)
        if self.num_steps is not None:
            num_batches = min(num_batches, self.num_steps - self._next_step)
        return max(0, self.prompts_per_step * num_batches - self.num_outstanding)

    def dispatch(self, request_id: int, *, version: int) -> None:
        """A request goes to a worker serving `version`, at the end of the line. Ids must grow."""
        if request_id <= self._last_id:
            raise IllegalTransition(f"request {request_id} dispatched after request {self._last_id}; ids must grow")
        if version > self._next_step:
            raise IllegalTransition(f"version {version} is served while {self._next_step} is the newest there can be")
        if self.capacity(version) < 1:
            raise IllegalTransition(
                f"request {request_id} dispatched to version {version} without capacity: "
                f"{self.num_outstanding} outstanding, next step {self._next_step}"
            )
        self._slots[request_id] = _Slot(version)
        self._line.append(request_id)
        self._last_id = request_id
        self._num_dispatched += 1

    def complete(self, group: RolloutGroup) -> None:
        """A group is generated, scored and worth training on; it waits for its turn."""
        slot = self._in_flight(group.request_id)
        if group.num_tokens:
            self._check_versions(group, slot.version)
        slot.group = group
        self._num_complete += 1
        if self.waiting_for == group.request_id:
            self._count_ready()

    def drop(self, request_id: int, *, reason: str) -> None:
        """A request ends without being trained on; its slot is free at once."""
        self._in_flight(request_id)
        del self._slots[request_id]
        was_head = self.waiting_for == request_id
        self._line.remove(request_id)
        if was_head:
            self._count_ready()
        self._num_dropped[reason] += 1

    def ready(self) -> tuple[RolloutGroup, ...]:
        """What the next batch is sure to begin with, oldest first: `num_ready` groups, at most a whole batch."""
        slots = [self._slots[request_id] for request_id in self._line[: min(self._num_ready, self.prompts_per_step)]]
        return tuple(slot.group for slot in slots if slot.group is not None)

    def take(self) -> tuple[RolloutGroup, ...] | None:
        """The next batch, oldest first; None until every one of its requests is complete."""
        if self._num_ready < self.prompts_per_step:
            return None
        batch, self._line = self._line[: self.prompts_per_step], self._line[self.prompts_per_step :]
        self._num_ready -= self.prompts_per_step
        self._num_complete -= self.prompts_per_step
        self._next_step += 1
        self._num_taken += len(batch)
        slots = [self._slots.pop(request_id) for request_id in batch]
        return tuple(slot.group for slot in slots if slot.group is not None)

    def snapshot(self) -> BufferSnapshot:
        return BufferSnapshot(
            next_step=self._next_step,
            num_in_flight=self.num_outstanding - self._num_complete,
            num_complete=self._num_complete,
            num_ready=self._num_ready,
            waiting_for=self.waiting_for,
            num_dispatched=self._num_dispatched,
            num_taken=self._num_taken,
            num_dropped=dict(self._num_dropped),
        )

    def _count_ready(self) -> None:
        """Amortised over the life of a request this is one look at each."""
        while self._num_ready < len(self._line) and self._slots[self._line[self._num_ready]].group is not None:
            self._num_ready += 1

    def _in_flight(self, request_id: int) -> _Slot:
        slot = self._slots.get(request_id)
        if slot is None:
            raise IllegalTransition(f"request {request_id} is not outstanding: never dispatched, dropped or taken")
        if slot.group is not None:
            raise IllegalTransition(f"request {request_id} is already complete")
        return slot

    def _check_versions(self, group: RolloutGroup, dispatched_version: int) -> None:
        newest = int(group.versions.max())
        if not dispatched_version <= group.oldest_version <= newest <= self._next_step:
            raise IllegalTransition(
                f"request {group.request_id} went to a worker serving version {dispatched_version} and came back with "
                f"versions {group.oldest_version} to {newest}, while {self._next_step} is the newest there can be"
            )
