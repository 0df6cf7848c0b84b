"""The replicas of one role: who is starting, serving, spare or leaving, and what to do next. No IO, no clock.

Events go in as method calls, `actions` says what is to be done about them. Whoever executes an action reports it as an
event (`opened`, `promoted`, `draining`, `closed`), so asking twice gives the same answer until something happened.

    opened -> pending -> starting -> [spare ->] [adopting ->] serving -> draining -> closed
                                 any of them -> lost

Kept at all times: no more than `size` replicas are adopting or serving, a replica that is missing is opened as soon as
its backoff is over, and a number is never used twice, so a worker id names one incarnation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.flow.buffer import IllegalTransition
from rlhf_cluster.flow.restarts import RestartBudget

ACTIVE = ("adopting", "serving")
WAITING = ("pending", "starting", "spare")
NUM_LOST_KEPT = 8
"""Lost members that are remembered, for people."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open a new replica with this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Promote:
    """Put a spare to work."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Give a replica no more work, and close it when its work is handed over."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close a replica that does no work."""

    worker_id: str


Action = Open | Promote | Drain | Close


@dataclass(slots=True, kw_only=True)
class Member:
    """One replica; `state` is one of those in `records.members.MemberView`."""

    worker_id: str
    number: int
    state: str
    reason: str = ""
    """Why it was lost."""
    holds_work: bool = False
    """Whether it was active before it was drained, so that there may be work to hand over."""


class PoolState:
    """One per role. An event in an impossible order raises `IllegalTransition`."""

    def __init__(self, *, size: int, spares: int, budget: RestartBudget, adopts: bool = False) -> None:
        """`adopts`: a replica serves only after it adopted weights, not as soon as it has started."""
        self.size = size
        self.spares = spares
        self.adopts = adopts
        self.members: dict[str, Member] = {}
        """All but the lost ones, oldest first."""
        self.lost_members: deque[Member] = deque(maxlen=NUM_LOST_KEPT)
        """The newest ones, oldest first."""
        self.num_restarts = 0
        self.spent: str | None = None
        """Set when a replica was lost that may not be replaced any more: why it was lost."""
        self._budget = budget
        self._next_number = 0
        self._due_s: list[float] = []
        self._check_size(size)

    def opened(self, worker_id: str) -> None:
        """The replica of the next `Open` exists; it may still wait for a machine."""
        if worker_id in self.members:
            raise IllegalTransition(f"worker id {worker_id} is used already")
        self.members[worker_id] = Member(worker_id=worker_id, number=self._next_number, state="pending")
        self._next_number += 1

    def placed(self, worker_id: str) -> None:
        """It has a machine and starts there."""
        self._in(worker_id, "pending").state = "starting"

    def started(self, worker_id: str) -> None:
        """It can work now; it does where one is missing, and is a spare otherwise."""
        member = self._in(worker_id, "starting")
        member.state = self._first_active_state if self.num_active < self.size else "spare"

    def promoted(self, worker_id: str) -> None:
        self._in(worker_id, "spare").state = self._first_active_state

    def serving(self, worker_id: str) -> None:
        """It has adopted weights."""
        self._in(worker_id, "adopting").state = "serving"

    def draining(self, worker_id: str) -> None:
        member = self._in(worker_id, *ACTIVE)
        member.state, member.holds_work = "draining", True

    def closed(self, worker_id: str) -> None:
        """It is gone on purpose: its work is handed over, or it had none."""
        self._in(worker_id, *WAITING, "draining")
        del self.members[worker_id]

    def lost(self, worker_id: str, *, reason: str, now_s: float, jitter: float = 0.0) -> None:
        """It died, hung or did not start. Unless it was leaving anyway this spends one replacement of the budget."""
        member = self._in(worker_id, *WAITING, *ACTIVE, "draining")
        was_leaving = member.state == "draining"
        del self.members[worker_id]
        member.state, member.reason = "lost", reason
        self.lost_members.append(member)
        if was_leaving or self._num_missing() <= 0:
            return
        wait_s = self._budget.spend(now_s, jitter=jitter)
        if wait_s is None:
            self.spent = reason
            return
        self.num_restarts += 1
        self._due_s = [due_s for due_s in self._due_s if due_s > now_s] + [now_s + wait_s]

    def resize(self, size: int) -> None:
        """Have `size` replicas at work from now on."""
        self._check_size(size)
        self.size = size

    def drain(self, worker_id: str) -> None:
        """Retire this one; the size falls by one, unless it was a spare beside a full set."""
        member = self._in(worker_id, *WAITING, *ACTIVE)
        counts = member.state in ACTIVE or self.num_active < self.size
        if counts:
            self._check_size(self.size - 1)
            self.size -= 1
        self.restart(worker_id)

    def restart(self, worker_id: str) -> None:
        """Retire this one and have another take its place: the size stays, and the budget is not touched."""
        member = self._in(worker_id, *WAITING, *ACTIVE)
        member.holds_work = member.state in ACTIVE
        member.state = "draining"

    def actions(self, now_s: float) -> tuple[Action, ...]:
        """What is to be done now; empty when all is as it should be or must wait."""
        todo: list[Action] = [Close(m.worker_id) for m in self._in_states("draining") if not m.holds_work]
        # The ones that serve nothing yet go first, then the youngest: the old ones have the warmest caches.
        active = sorted(self._in_states(*ACTIVE), key=lambda member: (member.state == "adopting", member.number))
        todo += [Drain(member.worker_id) for member in active[self.size :]]
        promoted = list(self._in_states("spare"))[: max(0, self.size - len(active))]
        todo += [Promote(member.worker_id) for member in promoted]
        num_missing = self._num_missing()
        if num_missing < 0:
            todo += [Close(member.worker_id) for member in self._superfluous(-num_missing)]
        todo += [Open(self._next_number + n) for n in range(self._num_admitted(now_s))]
        return tuple(todo)

    def next_due_s(self, now_s: float) -> float | None:
        """When the next backoff ends that holds a replica back; None when none does."""
        if self.spent is not None or self._num_missing() <= 0:
            return None
        return min((due_s for due_s in self._due_s if due_s > now_s), default=None)

    @property
    def num_active(self) -> int:
        """Replicas adopting or serving."""
        return sum(1 for _ in self._in_states(*ACTIVE))

    @property
    def _first_active_state(self) -> str:
        return "adopting" if self.adopts else "serving"

    def _num_missing(self) -> int:
        """Replicas to open to have all that are wanted, spares included; negative when there are too many waiting."""
        num_waiting = sum(1 for _ in self._in_states(*WAITING))
        return self.size - min(self.num_active, self.size) + self.spares - num_waiting

    def _num_admitted(self, now_s: float) -> int:
        if self.spent is not None:
            return 0
        num_held = sum(1 for due_s in self._due_s if due_s > now_s)
        return max(0, self._num_missing() - num_held)

    def _superfluous(self, count: int) -> list[Member]:
        """Of those that do no work, the furthest from being able to, the youngest first. Never one to be promoted:
        `count` leaves as many as are missing and `spares` more."""
        order = {state: place for place, state in enumerate(WAITING)}
        waiting = sorted(self._in_states(*WAITING), key=lambda member: (order[member.state], -member.number))
        return waiting[:count]

    def _in_states(self, *states: str) -> Iterable[Member]:
        return (member for member in self.members.values() if member.state in states)

    def _in(self, worker_id: str, *states: str) -> Member:
        member = self.members.get(worker_id)
        if member is None or member.state not in states:
            state = member.state if member else "unknown"
            raise IllegalTransition(
                f"{worker_id} is {state}, and this event is only for one that is {' or '.join(states)}"
            )
        return member

    @staticmethod
    def _check_size(size: int) -> None:
        if size < 1:
            raise ConfigError(f"a role cannot have {size} replicas: it needs at least 1 for the job to go on")
