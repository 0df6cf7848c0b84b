"""An event loop on which waiting takes no time: when nothing is ready, the clock jumps to the next timer.

Everything of asyncio that waits by the loop's clock works and is exact: `sleep`, `wait_for`, `timeout`, `TaskGroup`.
Work for other threads runs at once on the loop instead, so a run has one order of events, the same every time. Sockets
and real threads are never heard of; a role that needs them does not belong here.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")

EPOCH_S = 1_800_000_000.0
"""Unix time at which virtual time begins."""
MAX_TURNS_AT_ONCE = 200_000
"""Turns of the loop without time passing after which something must be spinning."""
MAX_TASKS_SHOWN = 12


class Deadlock(AssertionError):
    """Nothing is ready and no timer is left: what is waited for can never happen."""


class TooLong(AssertionError):
    """More virtual time passed than was allowed, or none in a great many turns of the loop."""


class VirtualClock:
    """The driver's `Clock` in virtual time. One clock may serve several runs, one after another; it never goes back."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def time(self) -> float:
        """Unix seconds."""
        return EPOCH_S + self.now_s

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float, /) -> None:
        await asyncio.sleep(seconds)


def run(
    main: Coroutine[Any, Any, Result], *, until_s: float = float("inf"), clock: VirtualClock | None = None
) -> Result:
    """`asyncio.run` in virtual time, from where `clock` stands.

    Raises `Deadlock`, which names the tasks that wait and where, or `TooLong` after `until_s` virtual seconds. What is
    cancelled then has as long again to clean up.
    """
    clock = clock or VirtualClock()
    with asyncio.Runner(loop_factory=lambda: _Loop(clock, until_s=until_s)) as runner:
        return runner.run(main)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock, *, until_s: float) -> None:
        self._clock = clock
        super().__init__(_Jumper(clock, until_s=until_s, describe=lambda: _waiting_tasks(self)))

    def time(self) -> float:
        return self._clock.now_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Run it now; the caller gets the answer one turn later, as it would from a thread at the earliest."""
        future = self.create_future()
        try:
            settle, answer = _set_result, func(*args)
        except Exception as error:  # noqa: BLE001  It is the caller's: it travels there.
            settle, answer = _set_exception, error
        self.call_soon(settle, future, answer)
        return future


class _Jumper(selectors.SelectSelector):
    """Where a loop would wait for sockets, this moves its clock."""

    def __init__(self, clock: VirtualClock, *, until_s: float, describe: Callable[[], str]) -> None:
        super().__init__()
        self._clock = clock
        self._allowed_s = until_s
        self._end_s = clock.now_s + until_s
        self._describe = describe
        self._num_turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock(f"nothing can happen any more at {self._clock.now_s:g} s; {self._describe()}")
        if timeout <= 0:
            self._num_turns += 1
            if self._num_turns > MAX_TURNS_AT_ONCE:
                self._give_up(f"{MAX_TURNS_AT_ONCE} turns of the loop at {self._clock.now_s:g} s: something spins")
            return []
        self._num_turns = 0
        self._clock.now_s += timeout
        if self._clock.now_s > self._end_s:
            self._give_up(f"not done after {self._allowed_s:g} virtual seconds")
        return []

    def _give_up(self, reason: str) -> None:
        self._num_turns = 0
        self._end_s = self._clock.now_s + self._allowed_s
        raise TooLong(f"{reason}; {self._describe()}")


def _set_result(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _waiting_tasks(loop: asyncio.AbstractEventLoop) -> str:
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: (len(task.get_name()), task.get_name()))
    lines = [f"  {task.get_name()}: {_where(task)}" for task in tasks[:MAX_TASKS_SHOWN]]
    more = [f"  and {len(tasks) - MAX_TASKS_SHOWN} more"] if len(tasks) > MAX_TASKS_SHOWN else []
    return "\n".join([f"{len(tasks)} tasks wait:", *lines, *more])


def _where(task: asyncio.Task[Any]) -> str:
    """From the task's own function inwards, as far as coroutines can be followed."""
    steps = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame: FrameType | None = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is not None:
            steps.append(f"{frame.f_code.co_qualname} line {frame.f_lineno}")
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return " > ".join(steps)
