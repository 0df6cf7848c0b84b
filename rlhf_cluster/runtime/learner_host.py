"""The place of the learner group: ranks are opened together, killed together, and replaced together.

A rank alone is of no use to the others: they would wait for it in a collective. So a lost rank means a lost group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_cluster.errors import BudgetSpent, RoleDied, RoleError, RoleTimeout
from rlhf_cluster.flow.restarts import RestartBudget
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.host import last_log_lines
from rlhf_cluster.runtime.spec import RoleSpec

ROLE = "learner"


@dataclass(slots=True)
class _Group:
    incarnation: int
    specs: Sequence[RoleSpec]
    ranks: LearnerGroup


class LearnerHost:
    """Holds the group that is there now in `group`, and a warm spare where the job wants one."""

    def __init__(
        self,
        runtime: Any,
        *,
        make_specs: Callable[[int], list[RoleSpec]],
        spare: bool,
        budget: RestartBudget,
        start_s: float,
        close_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        """`make_specs` gives the ranks of an incarnation, numbered from 0."""
        self.num_restarts = 0
        self.last_error = ""
        self._runtime = runtime
        self._make_specs = make_specs
        self._wants_spare = spare
        self._budget = budget
        self._start_s = start_s
        self._close_s = close_s
        self._monotonic = monotonic
        self._num_opened = 0
        self._current: _Group | None = None
        self._spare: asyncio.Task[_Group] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def group(self) -> LearnerGroup:
        assert self._current is not None, "start() comes first"
        return self._current.ranks

    @property
    def worker_id(self) -> str:
        """Of rank 0: the group's name in messages."""
        assert self._current is not None, "start() comes first"
        return self._current.specs[0].worker_id

    @property
    def members(self) -> dict[str, Any]:
        """Handles of the ranks by worker id."""
        current = self._current
        return (
            {} if current is None else {s.worker_id: r for s, r in zip(current.specs, current.ranks.ranks, strict=True)}
        )

    async def start(self) -> None:
        """Bring the first group up; what fails is raised as it is, but one that dies or hangs is tried once more."""
        try:
            self._current = await self._open()
        except (RoleDied, RoleTimeout) as error:
            self.last_error = str(error)
            self._current = await self._open()
        self._refill()

    async def replace(self, error: RoleError) -> LearnerGroup:
        """End the group as a whole and bring another one up. Raises `BudgetSpent`."""
        while True:
            self.last_error = str(error)
            self._end(self._current)
            delay_s = self._budget.spend(self._monotonic())
            if delay_s is None:
                raise self._budget_spent(error)
            await asyncio.sleep(delay_s)
            try:
                self._current = await self._take_spare() or await self._open()
            except RoleError as again:
                error = again
                continue
            self.num_restarts += 1
            self._refill()
            return self._current.ranks

    async def aclose(self) -> None:
        """Close what is there, each within its bound."""
        if self._spare is not None:
            if self._spare.done() and not self._spare.cancelled() and self._spare.exception() is None:
                await self._close(self._spare.result())
            self._spare.cancel()
            await asyncio.gather(self._spare, return_exceptions=True)
        if self._current is not None:
            await self._close(self._current)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _open(self) -> _Group:
        incarnation, self._num_opened = self._num_opened, self._num_opened + 1
        specs = self._make_specs(incarnation)
        opened = _Group(incarnation, specs, LearnerGroup([await self._runtime.open(spec) for spec in specs]))
        try:
            async with self._runtime.starting():
                starting = opened.ranks.start()
                await within(self._start_s, starting, role=ROLE, worker_id=specs[0].worker_id, activity="starting")
        except BaseException:
            self._end(opened)
            raise
        return opened

    async def _take_spare(self) -> _Group | None:
        """Also one that is still starting: it is ahead of a new one. None where there is none that still answers: it
        may have been lost long ago, or together with the group whose place it was to take."""
        starting, self._spare = self._spare, None
        if starting is None:
            return None
        try:
            spare = await starting
        except RoleError:
            return None
        where = {"role": ROLE, "worker_id": spare.specs[0].worker_id, "activity": "standing by"}
        try:
            await within(self._close_s, spare.ranks.status(), **where)
        except RoleError:
            self._end(spare)
            return None
        return spare

    def _refill(self) -> None:
        if self._wants_spare and self._spare is None:
            self._spare = asyncio.create_task(self._open())

    def _end(self, group: _Group | None) -> None:
        """Kill at once; where there is no process to kill, close in the background."""
        if group is None:
            return
        task = asyncio.create_task(self._killed(group))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _killed(self, group: _Group) -> None:
        async with asyncio.timeout(self._close_s):
            await group.ranks.kill()

    async def _close(self, group: _Group) -> None:
        where = {"role": ROLE, "worker_id": group.specs[0].worker_id, "activity": "closing"}
        try:
            await within(self._close_s, group.ranks.close(), **where)
        except RoleError:
            self._end(group)

    def _budget_spent(self, error: RoleError) -> BudgetSpent:
        worker_id = error.worker_id or self.worker_id
        log_dir = self._current.specs[0].log_dir if self._current else None
        lines = last_log_lines(log_dir, worker_id)
        tail = "\n".join(["", f"last lines of {worker_id}:", *lines]) if lines else ""
        return BudgetSpent(
            f"the learner was lost {self.num_restarts + 1} times, more than recovery.max_restarts allows; last: "
            f"{error}{tail}",
            role=ROLE,
            worker_id=worker_id,
            activity=error.activity,
        )
