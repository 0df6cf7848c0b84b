"""Ctrl-C in two steps: the first asks the job to stop after its current step, the second aborts it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rlhf_cluster.errors import Interrupted

Result = TypeVar("Result")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def run_stoppable(work: Callable[[asyncio.Event], Awaitable[Result]], *, tell: Callable[[str], None]) -> Result:
    """Await `work(stop)`. A first SIGINT or SIGTERM sets `stop`; a second cancels the work and raises `Interrupted`.

    After the second, the signals have their usual effect again, so a third ends a process that cannot even cancel.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.ensure_future(work(stop))

    def on_signal() -> None:
        if stop.is_set():
            tell("aborting; every batch so far is in the ledger, and `rlhf resume` goes on with the step under way")
            _restore(loop)
            task.cancel()
        else:
            tell("stopping after the current step; press Ctrl-C again to abort at once")
            stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        return await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        raise Interrupted("aborted before the current step was finished") from None
    finally:
        _restore(loop)


def _restore(loop: asyncio.AbstractEventLoop) -> None:
    for number in SIGNALS:
        loop.remove_signal_handler(number)
