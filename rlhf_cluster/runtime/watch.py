"""Waiting for a role that may hang: a role that still answers pings can be stuck, so what counts is its progress."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from rlhf_cluster.errors import RoleError, RoleHung

Result = TypeVar("Result")

STACKS_S = 2.0
CANCEL_S = 2.0


async def watched(
    answer: Awaitable[Result],
    *,
    handle: Any,
    stall_s: float,
    unresponsive_s: float,
    poll_s: float,
    role: str,
    worker_id: str,
    activity: str,
    counts_tokens: bool,
) -> Result:
    """Await `answer`, however long it takes, as long as the role shows that it lives.

    Every `poll_s` the role is asked for its status. Raises `RoleHung` when it does not tell it within `unresponsive_s`,
    or, where `counts_tokens`, when `tokens_total` has not grown for `stall_s`; `answer` is cancelled then. What
    `answer` or `status` raises is raised as it is.
    """
    watch = _Watch(handle, stall_s, unresponsive_s, poll_s, role, worker_id, activity, counts_tokens)
    work = asyncio.ensure_future(answer)
    watching: asyncio.Future[NoReturn] | None = None
    try:
        # Most answers come before the first look is due, and there are many of them.
        await asyncio.wait({work}, timeout=poll_s)
        if not work.done():
            watching = asyncio.create_task(watch.until_hung())
            await asyncio.wait({work, watching}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() or watching is None else watching.result()
    finally:
        await _cancelled(*(task for task in (work, watching) if task is not None))


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Bounded, because a role that hangs may also not let go."""
    if unfinished := [task for task in tasks if not task.done()]:
        for task in unfinished:
            task.cancel()
        await asyncio.wait(unfinished, timeout=CANCEL_S)
    for task in tasks:
        # Looked at, so that asyncio does not report a second error beside the one that is raised.
        if task.done() and not task.cancelled():
            task.exception()


@dataclass(slots=True)
class _Watch:
    handle: Any
    stall_s: float
    unresponsive_s: float
    poll_s: float
    role: str
    worker_id: str
    activity: str
    counts_tokens: bool

    async def until_hung(self) -> NoReturn:
        """Looks at once, then every `poll_s`."""
        clock = asyncio.get_running_loop().time
        tokens_total, grew_s = -1, clock()
        while True:
            try:
                async with asyncio.timeout(self.unresponsive_s):
                    status = await self.handle.status()
            except TimeoutError:
                await self._raise(f"has not told its status for {self.unresponsive_s:g} s")
            if status.tokens_total != tokens_total:
                tokens_total, grew_s = status.tokens_total, clock()
            elif self.counts_tokens and clock() - grew_s >= self.stall_s:
                await self._raise(f"has made no progress for {self.stall_s:g} s (it says: {status.activity})")
            await asyncio.sleep(self.poll_s)

    async def _raise(self, what: str) -> NoReturn:
        raise RoleHung(
            f"{self.role} {self.worker_id} {what} while {self.activity}; {await self._pointer()}",
            role=self.role,
            worker_id=self.worker_id,
            activity=self.activity,
        )

    async def _pointer(self) -> str:
        """Where to read what it was stuck in: the first line of its stacks says it."""
        if not hasattr(self.handle, "stacks"):
            return "it runs in this process"
        # It hangs, so that it may well not answer this either.
        with contextlib.suppress(TimeoutError, RoleError):
            async with asyncio.timeout(STACKS_S):
                if told := await self.handle.stacks():
                    return told.splitlines()[0]
        return "it does not tell where it is stuck; its watchdog writes that into its log"
