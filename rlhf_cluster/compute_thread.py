"""The one thread in which a role does its blocking work, so that its event loop stays free to answer `status`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psutil

from rlhf_cluster.errors import RoleError
from rlhf_cluster.records import WorkerStatus

Result = TypeVar("Result")


class ComputeThread:
    """Calls run one at a time, in the order in which they were made. Belongs to one event loop."""

    def __init__(self, worker_id: str, *, role: str) -> None:
        self.role = role
        self.worker_id = worker_id
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=worker_id)
        self._closed = False
        self._num_calls = 0
        self._done_s = 0.0
        self._running: tuple[str, float] | None = None
        """Activity and start (monotonic seconds) of the call under way; one value, so that readers need no lock."""

    async def run(self, activity: str, function: Callable[..., Result], *arguments: Any) -> Result:
        """What the function returns or raises. Raises `RoleError` once the thread is closed.

        A caller that gives up takes its call out of the queue; a call that has begun goes on to its end.
        """
        if self._closed:
            raise RoleError(
                f"{self.role} {self.worker_id} is closed", role=self.role, worker_id=self.worker_id, activity=activity
            )
        return await self._queue(activity, function, *arguments)

    def status(self, *, ready: bool, version: int = -1, tokens_total: int = 0) -> WorkerStatus:
        """`ready` is false as long as the role has not loaded its model."""
        running = self._running
        busy = "busy" if ready else "starting"
        state = "closed" if self._closed else busy if running or not ready else "idle"
        return WorkerStatus(
            role=self.role,
            worker_id=self.worker_id,
            state=state,
            activity=running[0] if running else state,
            version=version,
            num_in_flight=self._num_calls,
            tokens_total=tokens_total,
            busy_s=self._done_s + (time.monotonic() - running[1] if running else 0.0),
            rss_bytes=psutil.Process().memory_info().rss,
            process_id=os.getpid(),
        )

    async def close(self, last: Callable[[], object] | None = None) -> None:
        """Run `last`, which frees what the calls used, behind the calls already made; without it wait for nothing.

        Closing twice is fine.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if last is not None:
                await self._queue("closing", last)
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _queue(self, activity: str, function: Callable[..., Result], *arguments: Any) -> Result:
        self._num_calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, self._timed, activity, function, arguments
            )
        finally:
            self._num_calls -= 1

    def _timed(self, activity: str, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
        started_s = time.monotonic()
        self._running = (activity, started_s)
        try:
            return function(*arguments)
        finally:
            self._done_s += time.monotonic() - started_s
            self._running = None
