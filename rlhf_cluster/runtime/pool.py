"""Keeps the replicas of one role: opens, starts, replaces, promotes, drains and closes them, as `flow/pool.py` decides.

consumes     what the owner tells: `lost`, `serves`, `drained`, `resize`, `drain`, `restart`
produces     handles that can be used (`handles`), handles that wait for weights (`started`), `WorkerChanged` events
waits for    a replica to be placed, to start and to close, each in a task of its own and each bounded
unblocked by an answer, an error, a bound, the end of a backoff

One lives in the driver's event loop and nowhere else, so it needs no locks.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from rlhf_cluster.errors import BudgetSpent, RlhfError, RoleDied, RoleError, RoleTimeout
from rlhf_cluster.flow.pool import Close, Drain, Open, PoolState, Promote
from rlhf_cluster.flow.restarts import RestartBudget
from rlhf_cluster.records import WorkerStatus
from rlhf_cluster.records.events import WorkerChanged
from rlhf_cluster.records.members import PoolView
from rlhf_cluster.runtime.base import Runtime
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.host import last_log_lines
from rlhf_cluster.runtime.members import Member, view_of
from rlhf_cluster.runtime.pool_waits import PoolBounds, PoolClock, machine_for
from rlhf_cluster.runtime.spec import RoleSpec

MIN_TIMER_S = 0.05
NUM_STARTS = 2
"""One that dies or hangs on its way up is tried once more."""


class Pool:
    """`start` it, read `handles()` whenever `changed` is set, tell it what was seen, `aclose` it."""

    def __init__(
        self,
        role: str,
        make_spec: Callable[[int], RoleSpec],
        runtime: Runtime,
        *,
        size: int,
        spares: int,
        adopts: bool,
        budget: RestartBudget,
        bounds: PoolBounds,
        clock: PoolClock,
        emit: Callable[[WorkerChanged], None],
        step: Callable[[], int] = lambda: 0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`make_spec` gives the replica of a number. `step` stamps the events."""
        self.role = role
        self.changed = asyncio.Event()
        """Set at every change; the owner clears it."""
        self.failure: BudgetSpent | None = None
        """Set when a replica was lost that may not be replaced any more."""
        self._make_spec = make_spec
        self._runtime = runtime
        self._bounds = bounds
        self._budget = budget
        self._state = PoolState(size=size, spares=spares, adopts=adopts, budget=budget)
        self._clock = clock
        self._emit = emit
        self._step = step
        self._jitter = jitter
        self._members: dict[str, Member] = {}
        self._lost: dict[str, Member] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._served_s = clock.monotonic()
        self._is_running = False

    async def start(self) -> None:
        """Bring up the first `size` replicas; spares follow in the background.

        One that dies or hangs on the way is tried once more, because a machine may go at any time. What it raises then
        is raised, and anything else at once: a job that cannot start should say so soon.
        """
        todo = self._state.actions(self._clock.monotonic())
        numbers = [action.number for action in todo if isinstance(action, Open)][: self._state.size]
        try:
            async with asyncio.TaskGroup() as together:
                for number in numbers:
                    together.create_task(self._start_one(number))
        except BaseExceptionGroup as group:
            # The others were cancelled because of the first: one clear message beats a tree of them.
            raise group.exceptions[0] from None
        self._is_running = True
        self._act()

    async def _start_one(self, number: int) -> None:
        member = self._opened(number)
        try:
            await self._bring_up(member)
        except (RoleDied, RoleTimeout) as error:
            had_machine = member.state != "pending"
            self.lost(member.worker_id, error)
            again = [action.number for action in self._state.actions(math.inf) if isinstance(action, Open)]
            if not (again and had_machine):
                raise
            await self._bring_up(self._opened(again[0]))

    @property
    def size(self) -> int:
        """Replicas wanted at work."""
        return self._state.size

    @property
    def num_restarts(self) -> int:
        return self._state.num_restarts

    def handles(self) -> dict[str, Any]:
        """Those that serve, oldest first."""
        return self._in_state("serving")

    def started(self) -> dict[str, Any]:
        """Those that are up and wait for their first weights; `serves` follows."""
        return self._in_state("adopting")

    def draining(self) -> dict[str, Any]:
        """Those that get no new work; `drained` follows."""
        return self._in_state("draining")

    def serves(self, worker_id: str) -> None:
        """The owner had it adopt weights. Nothing happens to one that was lost or drained meanwhile."""
        if worker_id in self._members and self._members[worker_id].state == "adopting":
            self._state.serving(worker_id)
            self._note(worker_id)

    def drained(self, worker_id: str) -> None:
        """Its work is handed over: close it."""
        if worker_id in self.draining():
            self._close(worker_id)
            self._act()

    def lost(self, worker_id: str, error: BaseException) -> None:
        """It died, hung or answered nonsense: kill what is left of it and have it replaced. Twice is once."""
        member = self._members.pop(worker_id, None)
        if member is None:
            return
        # The log is read before anything else of its machine is cleaned up.
        log_lines = last_log_lines(member.spec.log_dir, worker_id)
        reason = "\n".join([str(error) or type(error).__name__, *(f"    {line}" for line in log_lines)])
        now_s = self._clock.monotonic()
        self._state.lost(worker_id, reason=reason, now_s=now_s, jitter=self._jitter())
        self._end(member, at_once=True)
        self._lost[worker_id] = member
        for gone in set(self._lost) - {kept.worker_id for kept in self._state.lost_members}:
            del self._lost[gone]
        self._tell(member, "lost", reason)
        if self._state.spent is not None and self.failure is None:
            self.failure = self._budget_spent(member, reason)
        self._act()

    def holds(self, worker_id: str) -> bool:
        """False for one that was lost or closed."""
        return worker_id in self._members

    def why_lost(self, worker_id: str) -> str:
        """What was seen of one that was lost; of many that are lost together only the last ones are remembered."""
        return self._lost[worker_id].reason if worker_id in self._lost else f"{worker_id} was lost with many others"

    def raise_if_unserved(self) -> None:
        """What makes any further wait for this role pointless: its failure, or that nobody serves for too long.

        Each start is bounded and the number of starts is, but not what they take together: a window full of starts
        that hang would be hours.
        """
        if self.failure is not None:
            raise self.failure
        bound_s = NUM_STARTS * self._bounds.start_s
        if not self.handles() and self._clock.monotonic() - self._served_s > bound_s:
            raise RoleTimeout(
                f"no {self.role} has served for {bound_s:g} s: {self._why_none()}", role=self.role, activity="starting"
            )

    def _why_none(self) -> str:
        states = [
            f"{m.worker_id} is {m.state}" + (f" ({m.reason})" if m.reason else "") for m in self._members.values()
        ]
        lost = [f"{m.worker_id} was lost: {m.reason.splitlines()[0]}" for m in list(self._lost.values())[-1:]]
        return "; ".join([*states, *lost]) or "none was opened"

    def resize(self, size: int) -> None:
        """Have `size` at work from now on. Raises `ConfigError` below 1."""
        self._state.resize(size)
        self._act()

    def drain(self, worker_id: str) -> bool:
        """Retire this one and lower the size by one; false where there is none to retire. Raises `ConfigError` for the
        last."""
        return self._retire(worker_id, self._state.drain)

    def restart(self, worker_id: str) -> bool:
        """Retire this one and open another in its place; false where there is none to retire."""
        return self._retire(worker_id, self._state.restart)

    def _retire(self, worker_id: str, retire: Callable[[str], None]) -> bool:
        if worker_id not in self._members or self._members[worker_id].state == "draining":
            return False
        retire(worker_id)
        self._note(worker_id)
        self._act()
        return True

    def view(self, statuses: Mapping[str, WorkerStatus] | None = None) -> PoolView:
        """For people and policies, with what the members said last where the owner knows it."""
        now_s = self._clock.monotonic()
        members = [*self._members.values(), *self._lost.values()]
        known = statuses or {}
        newest = next(reversed(self._state.lost_members), None)
        return PoolView(
            role=self.role,
            desired=self._state.size,
            num_restarts=self._state.num_restarts,
            last_error=newest.reason.splitlines()[0] if newest else "",
            members=tuple(view_of(member, known.get(member.worker_id), now_s=now_s) for member in members),
        )

    async def aclose(self) -> None:
        """End every replica: closed within the bound, then killed."""
        self._is_running = False
        if self._timer:
            self._timer.cancel()
        for worker_id in list(self._members):
            self._end(self._members.pop(worker_id))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _act(self) -> None:
        """Do what the state asks for; each action changes it, so this comes to an end."""
        self.changed.set()
        if not self._is_running:
            return
        now_s = self._clock.monotonic()
        while todo := self._state.actions(now_s):
            for action in todo:
                match action:
                    case Open(number):
                        self._begin(self._opened(number))
                    case Promote(worker_id):
                        self._state.promoted(worker_id)
                        self._note(worker_id)
                    case Drain(worker_id):
                        self._state.draining(worker_id)
                        self._note(worker_id)
                    case Close(worker_id):
                        self._close(worker_id)
        self._wake_at(self._state.next_due_s(now_s), now_s)

    def _wake_at(self, due_s: float | None, now_s: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = None
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(MIN_TIMER_S, due_s - now_s), self._act)

    def _opened(self, number: int) -> Member:
        spec = self._make_spec(number)
        self._state.opened(spec.worker_id)
        member = Member(spec=spec, since_s=self._clock.time())
        self._members[spec.worker_id] = member
        return member

    def _begin(self, member: Member) -> None:
        """Bring it up in the background. A start that fails is a loss: the budget bounds how often it is tried."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                self.lost(member.worker_id, error)

        member.starting = self._spawn(self._bring_up(member))
        member.starting.add_done_callback(ended)

    async def _bring_up(self, member: Member) -> None:
        spec = member.spec
        where = {"role": spec.role, "worker_id": spec.worker_id}
        member.handle = await self._runtime.open(spec)
        await machine_for(
            member,
            self._runtime,
            bounds=self._bounds,
            clock=self._clock,
            pends=lambda reason: self._pends(member, reason),
            is_alone=lambda: not (self._is_running and self._state.num_active),
        )
        self._state.placed(spec.worker_id)
        self._note(spec.worker_id)
        async with self._runtime.starting():
            await within(self._bounds.start_s, member.handle.start(), **where, activity="starting")
        self._state.started(spec.worker_id)
        self._note(spec.worker_id)
        if hasattr(member.handle, "gone"):
            member.mourning = self._spawn(self._mourn(member))
        if self._is_running:
            self._act()

    async def _mourn(self, member: Member) -> None:
        """A process that dies while nobody asks anything of it is missed at once, not at the next step."""
        try:
            await member.handle.gone()
        except RoleError as error:
            self.lost(member.worker_id, error)

    def _pends(self, member: Member, reason: str) -> None:
        if reason != member.reason:
            member.reason = reason
            self._tell(member, "pending", reason)
            self.changed.set()

    def _close(self, worker_id: str) -> None:
        self._state.closed(worker_id)
        member = self._members.pop(worker_id)
        self._end(member)
        self._tell(member, "closed")
        self.changed.set()

    def _end(self, member: Member, *, at_once: bool = False) -> None:
        """Its process goes: killed, or closed in the background if it is well and has something to close."""
        for task in (member.starting, member.mourning):
            if task and task is not asyncio.current_task():
                task.cancel()
        if member.handle is None:
            return
        at_once = at_once or member.state in ("pending", "starting")
        if at_once and hasattr(member.handle, "kill"):
            member.handle.kill()
        else:
            self._spawn(self._close_and_kill(member))

    async def _close_and_kill(self, member: Member) -> None:
        spec, handle = member.spec, member.handle
        where = {"role": spec.role, "worker_id": spec.worker_id, "activity": "closing"}
        try:
            await within(self._bounds.close_s, handle.close(), **where)
        except RlhfError:
            # It leaves anyway, and its process is ended below.
            pass
        finally:
            if hasattr(handle, "kill"):
                handle.kill()

    def _note(self, worker_id: str) -> None:
        """The state of a member has changed: remember since when, and tell."""
        member = self._members[worker_id]
        self._tell(member, self._state.members[worker_id].state)
        self.changed.set()

    def _tell(self, member: Member, state: str, reason: str = "") -> None:
        if member.state == "serving":
            self._served_s = self._clock.monotonic()
        member.state, member.reason, member.since_s = state, reason, self._clock.time()
        self._emit(
            WorkerChanged(
                time_s=member.since_s,
                step=self._step(),
                role=self.role,
                worker_id=member.worker_id,
                state=state,
                reason=reason,
            )
        )

    def _budget_spent(self, member: Member, reason: str) -> BudgetSpent:
        budget = self._budget
        return BudgetSpent(
            f"{self.role} {member.worker_id} was lost and may not be replaced: {budget.max_restarts} replacements "
            f"within {budget.window_s:g} s are spent (see [recovery]). The last cause: {reason}",
            role=self.role,
            worker_id=member.worker_id,
            activity=member.state,
        )

    def _in_state(self, state: str) -> dict[str, Any]:
        return {worker_id: member.handle for worker_id, member in self._members.items() if member.state == state}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
