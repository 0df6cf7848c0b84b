"""The thread that drives an engine, and the streams on which groups come back to asyncio.

    step loop   consumes  calls posted from any thread, run one at a time between two steps
                produces  groups, each to the stream whose request it answers
                waits for the next call, and only while no request is in flight
                unblocked by `post` and `close`

When opening or stepping fails, every caller and every stream gets the error, and so does whoever comes later.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from queue import SimpleQueue
from typing import TypeVar

from rlhf_cluster.errors import RoleDied
from rlhf_cluster.records import RolloutGroup, RolloutRequest
from rlhf_cluster.rollout.engine import Engine

ROLE = "rollout worker"
Result = TypeVar("Result")


class GroupStream:
    """Groups on their way from the step thread to one reader on an event loop."""

    def __init__(self, event_loop: asyncio.AbstractEventLoop, *, num_groups: int) -> None:
        self.num_missing = num_groups
        """Groups that the reader has not got yet."""
        self._event_loop = event_loop
        self._news = asyncio.Event()
        self._groups: list[RolloutGroup] = []
        self._error: BaseException | None = None

    async def next(self) -> tuple[RolloutGroup, ...]:
        """All groups since the last call, at least one. Raises what ended the stream once those are out."""
        await self._news.wait()
        if not self._groups:
            assert self._error is not None
            raise self._error
        groups, self._groups = tuple(self._groups), []
        self.num_missing -= len(groups)
        if self._error is None:
            self._news.clear()
        return groups

    def deliver(self, groups: Sequence[RolloutGroup] = (), error: BaseException | None = None) -> None:
        """Called by the step thread."""
        if not self._event_loop.is_closed():
            self._event_loop.call_soon_threadsafe(self._receive, groups, error)

    def _receive(self, groups: Sequence[RolloutGroup], error: BaseException | None) -> None:
        self._groups.extend(groups)
        self._error = self._error or error
        self._news.set()


class StepLoop:
    """Methods named `*_now` belong to the step thread: call them from inside a posted call."""

    def __init__(self, open_engine: Callable[[], Engine], *, worker_id: str) -> None:
        self.worker_id = worker_id
        self.state = "starting"
        """`starting`, `open` or `closed`."""
        self.activity = "not started"
        self.tokens_total = 0
        self.tokens_in_flight = 0
        self.busy_s = 0.0
        self._open_engine = open_engine
        self._calls: SimpleQueue[tuple[Future, Callable[[Engine], object] | None]] = SimpleQueue()
        self._failure: BaseException | None = None
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._main, name=f"step-loop {worker_id}", daemon=True)
        # Requests get numbers of their own inside the engine, because an evaluation may use the ids of the training.
        self._tickets = itertools.count()
        self._waiting: dict[int, tuple[GroupStream, int]] = {}

    def start(self) -> None:
        """Open the engine in the thread, if that has not begun. Calls may be posted at once."""
        with self._gate:
            if self._thread.ident is None and self._failure is None:
                self.activity = "opening the engine"
                self._thread.start()

    def post(self, call: Callable[[Engine], Result]) -> Future[Result]:
        """Have `call` run between two steps. Its result, or what it raised, is the future's."""
        future: Future[Result] = Future()
        with self._gate:
            if self._failure is None:
                self._calls.put((future, call))
            else:
                future.set_exception(self._failure)
        return future

    def abandon(self, stream: GroupStream) -> None:
        """Abort the requests of a stream that nobody reads any more."""
        self.post(lambda engine: self._abort_now(engine, stream))

    def close(self, *, timeout_s: float) -> bool:
        """Finish the step that runs, close the engine, fail whoever waits. False if that took longer than allowed."""
        with self._gate:
            running = self._thread.is_alive()
            if running:
                self._calls.put((Future(), None))
        if not running:
            self._end(RoleDied(f"{self.worker_id} is closed", role=ROLE, worker_id=self.worker_id, activity="closed"))
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def num_in_flight(self) -> int:
        return len(self._waiting)

    def admit_now(self, engine: Engine, requests: Sequence[RolloutRequest], stream: GroupStream) -> None:
        """Submit all requests, or none when one is refused."""
        try:
            for request in requests:
                ticket = next(self._tickets)
                self._waiting[ticket] = (stream, request.request_id)
                engine.submit(replace(request, request_id=ticket))
        except BaseException:
            self._abort_now(engine, stream)
            raise

    def fail_all_now(self, engine: Engine, error: BaseException) -> None:
        """Abort everything in flight; whoever waits for it gets `error`."""
        engine.abort_all()
        self._count(engine)
        self._fail_waiting(error)

    def hand_over_now(self, engine: Engine) -> None:
        """Give every stream its remaining groups, as far as they got; they all end with that."""
        groups = engine.hand_over()
        self._count(engine)
        self._deliver(groups)

    def _abort_now(self, engine: Engine, stream: GroupStream) -> None:
        tickets = [ticket for ticket, (owner, _) in self._waiting.items() if owner is stream]
        engine.abort(tickets)
        self._count(engine)
        for ticket in tickets:
            del self._waiting[ticket]

    def _main(self) -> None:
        engine = None
        try:
            engine = self._open_engine()
            self.state = "open"
            while self._run_calls(engine):
                self._step(engine)
            error = RoleDied(
                f"{self.worker_id} was closed", role=ROLE, worker_id=self.worker_id, activity=self.activity
            )
        except Exception as raised:  # noqa: BLE001
            # Supervision: this thread is the only one that can tell the waiting ones why nothing will come any more.
            error = raised if engine is None else self._crash(raised)
        self._end(error)
        if engine is not None:
            engine.close()

    def _run_calls(self, engine: Engine) -> bool:
        """Run what was posted; with nothing in flight, wait for something to be. False when asked to close."""
        while not self._calls.empty() or not self._waiting:
            if not self._waiting:
                self.activity = "idle"
            future, call = self._calls.get()
            if call is None:
                return False
            if future.set_running_or_notify_cancel():
                self._answer(engine, future, call)
        return True

    def _answer(self, engine: Engine, future: Future, call: Callable[[Engine], object]) -> None:
        started = time.monotonic()
        try:
            future.set_result(call(engine))
        except BaseException as error:  # noqa: BLE001  It is the caller's: it travels there.
            future.set_exception(error)
        self.busy_s += time.monotonic() - started

    def _step(self, engine: Engine) -> None:
        self.activity = f"generating for {len(self._waiting)} prompts"
        started = time.monotonic()
        groups = engine.step()
        self._count(engine)
        self.busy_s += time.monotonic() - started
        self._deliver(groups)

    def _count(self, engine: Engine) -> None:
        """Counters are copied for `status`, which must not touch an engine that another thread is stepping."""
        self.tokens_total = engine.tokens_generated()
        self.tokens_in_flight = engine.tokens_in_flight()

    def _deliver(self, groups: Sequence[RolloutGroup]) -> None:
        by_stream: dict[GroupStream, list[RolloutGroup]] = defaultdict(list)
        for group in groups:
            stream, request_id = self._waiting.pop(group.request_id)
            by_stream[stream].append(replace(group, request_id=request_id, worker_id=self.worker_id))
        for stream, its_groups in by_stream.items():
            stream.deliver(its_groups)

    def _crash(self, error: Exception) -> RoleDied:
        died = RoleDied(
            f"{self.worker_id}: the engine crashed while {self.activity}: {type(error).__name__}: {error}",
            role=ROLE,
            worker_id=self.worker_id,
            activity=self.activity,
        )
        died.__cause__ = error
        return died

    def _end(self, error: BaseException) -> None:
        with self._gate:
            self._failure = self._failure or error
            self.state = "closed"
            self.activity = str(error)
            while not self._calls.empty():
                future, _ = self._calls.get()
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
        self._fail_waiting(error)

    def _fail_waiting(self, error: BaseException) -> None:
        for stream in {stream for stream, _ in self._waiting.values()}:
            stream.deliver(error=error)
        self._waiting.clear()
