"""What all simulated roles share: time that passes by the event loop, and the ways in which a role can fail.

A role of this kind is one object on the event loop, without thread or process, so that a thousand fit into one test.
With the loop of `virtual_time` its hours pass in no time.
"""

from __future__ import annotations

import asyncio

from rlhf_cluster.errors import RoleDied
from rlhf_cluster.records import WorkerStatus


class SimulatedRole:
    """Answers like a role's handle on Ray: after `kill` every pending and later call raises `RoleDied`."""

    def __init__(self, role: str, worker_id: str, *, start_s: float = 0.0) -> None:
        self.role = role
        self.worker_id = worker_id
        self.start_s = start_s
        self.slowdown = 1.0
        """What begins from now on takes so many times as long."""
        self.activity = "starting"
        self.is_started = False
        self.is_hung = False
        self.death: str | None = None
        """Why nothing can be asked of it any more."""
        self.tokens_total = 0
        self._is_closed = False
        self._busy_s = 0.0
        self._pauses: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        await self._pass(self.start_s, "starting")
        self.is_started = True

    async def status(self) -> WorkerStatus:
        if not self._is_closed:
            await self._answer()
        return self._status()

    async def close(self) -> None:
        if not self._is_closed:
            await self._answer()
            self._is_closed = True
            self._end("is closed")

    def kill(self, reason: str = "was killed") -> None:
        """As when its process ends without warning."""
        self._end(reason)

    def hang(self) -> None:
        """From now on nothing is answered, not even `status`, until it is killed."""
        self.is_hung = True

    def _end(self, reason: str) -> None:
        if self.death is None:
            self.death = reason
        for pause in self._pauses:
            _wake(pause)

    def _status(self) -> WorkerStatus:
        return WorkerStatus(
            role=self.role,
            worker_id=self.worker_id,
            state=self._state(),
            activity=self.activity,
            tokens_total=self.tokens_total,
            busy_s=self._busy_s,
        )

    def _state(self) -> str:
        if self._is_closed:
            return "closed"
        if not self.is_started:
            return "starting"
        return "busy" if self._pauses else "idle"

    async def _work(self, seconds: float, activity: str) -> None:
        """`_pass` of time that counts as busy."""
        await self._pass(seconds, activity)
        self._busy_s += seconds * self.slowdown

    async def _answer(self) -> None:
        """What every call begins with: raises if the role is dead, waits for its end if it hangs."""
        if self.death is not None:
            raise self._died()
        if self.is_hung:
            await self._pass(0.0, self.activity)

    async def _pass(self, seconds: float, activity: str) -> None:
        """Let time pass. Raises `RoleDied` when the role dies meanwhile, and does not return while it hangs."""
        if self.death is not None:
            raise self._died()
        self.activity = activity
        if not seconds and not self.is_hung:
            return
        loop = asyncio.get_running_loop()
        pause = loop.create_future()
        timer = loop.call_later(seconds * self.slowdown, self._over, pause)
        self._pauses.add(pause)
        try:
            await pause
        finally:
            timer.cancel()
            self._pauses.discard(pause)
        if self.death is not None:
            raise self._died()
        self.activity = "idle"

    def _over(self, pause: asyncio.Future[None]) -> None:
        if not self.is_hung:
            _wake(pause)

    def _died(self) -> RoleDied:
        return RoleDied(
            f"{self.role} {self.worker_id} {self.death}",
            role=self.role,
            worker_id=self.worker_id,
            activity=self.activity,
        )


def _wake(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
