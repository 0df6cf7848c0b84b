"""Ctrl-C in two steps: the first asks the job to stop after its current step, the second aborts it.

SIGTERM asks too, and asks the same however often and however late it comes: who supervises processes may send it to
each of them and to their parent, which passes it on. Whoever does not want to wait sends SIGKILL.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rlhf_cluster.errors import Interrupted

Result = TypeVar("Result")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def run_stoppable(work: Callable[[asyncio.Event], Awaitable[Result]], *, tell: Callable[[str], None]) -> Result:
    """Await `work(stop)`. A first SIGINT or SIGTERM sets `stop`; a SIGINT after it cancels the work and raises
    `Interrupted`.

    After that, the signals have their usual effect again, so another one ends a process that cannot even cancel. Where
    the work has stopped as it was asked to, SIGTERM has none: the process is about to end, with the code that says so.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    task = asyncio.ensure_future(work(stop))

    def on_signal(number: signal.Signals) -> None:
        # A driver that uses Ray has Ray's handler of SIGTERM before ours: it prints a stack, calls ours, and has set an
        # alarm that aborts the process three seconds later, in the middle of the step.
        signal.alarm(0)
        if stop.is_set() and number == signal.SIGTERM:
            return
        if stop.is_set():
            tell("aborting; every batch so far is in the ledger, and `rlhf resume` goes on with the step under way")
            _restore(sigterm=signal.SIG_DFL)
            task.cancel()
        else:
            tell("stopping after the current step; press Ctrl-C again to abort at once")
            stop.set()

    # Not the loop's own handlers: it gives SIGTERM its usual effect back when it is closed.
    for number in SIGNALS:
        signal.signal(number, lambda number, _: loop.call_soon_threadsafe(on_signal, signal.Signals(number)))
    try:
        return await task
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        raise Interrupted("aborted before the current step was finished") from None
    finally:
        _restore(sigterm=signal.SIG_IGN if stop.is_set() else signal.SIG_DFL)


def _restore(*, sigterm: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, sigterm)
