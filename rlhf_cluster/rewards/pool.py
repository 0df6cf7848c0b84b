"""Runs reward functions in processes of their own, so that one that hangs, crashes or hoards memory harms nobody else.

One call carries all completions of a group for one reward. When a call times out or its process dies, its samples are
tried again alone, which tells whose fault it was. Every wait is bounded, and every failure is a `Failure`, never a 0.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any

from pebble import ProcessExpired, ProcessPool

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards import pool_process
from rlhf_cluster.rewards.pool_process import FunctionSpec
from rlhf_cluster.rewards.sample import Failure, Outcome, RewardSample, ScoreSamples, failure_of
from rlhf_cluster.rewards.settings import FunctionReward

KILL_LIMIT_S = 5.0
"""Pebble asks a process to end, and after 3 s ends it by force; then its replacement starts."""
NUM_ATTEMPTS = 3
"""Of a call that a broken pool lost, through no fault of the call."""
WATCH_INTERVAL_S = 0.5
"""Between looks at the pool while a call waits."""


class FunctionPool:
    """Function rewards in `num_processes` processes. Belongs to one event loop.

    `start_limit_s` is for a process to start and import what the rewards need.
    """

    def __init__(
        self,
        rewards: Sequence[FunctionReward],
        *,
        num_processes: int = 1,
        max_process_memory_mib: int | None = None,
        start_limit_s: float = 60.0,
    ) -> None:
        self._limits_s = {reward.label: reward.time_limit_s for reward in rewards}
        specs = tuple(FunctionSpec(label=r.label, function=r.function, args=r.args) for r in rewards)
        max_memory_bytes = None if max_process_memory_mib is None else max_process_memory_mib << 20
        self._initargs = (specs, max_memory_bytes)
        self._num_processes = num_processes
        # A pool that works answers some call at least this often, if only that its time is up.
        self._start_limit_s = start_limit_s
        self._silence_limit_s = start_limit_s + KILL_LIMIT_S + max(self._limits_s.values())
        self._heard_s = 0.0
        self._closed = False
        self._pool = self._open()

    async def start(self) -> None:
        """Start the processes and load the functions. Raises `ConfigError` naming each one that does not load."""
        errors = await self._call(pool_process.load_errors, limit_s=self._start_limit_s)
        if isinstance(errors, Failure):
            raise ConfigError(f"the processes for reward functions did not start: {errors.message}")
        if errors:
            raise ConfigError("; ".join(errors.values()))

    async def score(self, label: str, samples: Sequence[RewardSample]) -> list[Outcome]:
        """One outcome a sample. Together first; alone when that ended without an answer."""
        outcomes = await self._score_together(label, samples)
        if not isinstance(outcomes, Failure):
            return outcomes
        if len(samples) == 1 or outcomes.kind in ("raised", "unavailable"):
            return [outcomes] * len(samples)
        alone = await asyncio.gather(*(self._score_together(label, [sample]) for sample in samples))
        return [outcome if isinstance(outcome, Failure) else outcome[0] for outcome in alone]

    def scorer(self, label: str) -> ScoreSamples:
        """`score` of one reward."""
        return partial(self.score, label)

    async def close(self) -> None:
        """End the processes, busy or not."""
        self._closed = True
        await asyncio.to_thread(_stop, self._pool)

    async def _score_together(self, label: str, samples: Sequence[RewardSample]) -> list[Outcome] | Failure:
        # Pickled here and unpickled under the process's own guard: a row that cannot travel fails alone, not the pool.
        try:
            pickled_samples = pickle.dumps(samples)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            return failure_of(error)
        return await self._call(pool_process.score_samples, label, pickled_samples, limit_s=self._limits_s[label])

    async def _call(self, function: Callable[..., Any], *args: Any, limit_s: float) -> Any:
        """What the function returns in a process, or the `Failure` of having no answer."""
        for _ in range(NUM_ATTEMPTS):
            pool = self._pool
            try:
                answer = pool.schedule(function, args=args, timeout=limit_s)
                return await self._answer(pool, asyncio.wrap_future(answer))
            except TimeoutError:
                return Failure(kind="timed_out", message=f"no answer within {limit_s:g} s")
            except ProcessExpired as error:
                return Failure(kind="died", message=f"its process ended with exit code {error.exitcode}")
            except RuntimeError:  # pebble's word for a pool that is broken or stopped, `BrokenProcessPool` included
                self._replace(pool)
            except Exception as error:  # noqa: BLE001
                # It came out of the process around the function, such as its last memory gone.
                return failure_of(error)
        return Failure(kind="unavailable", message=f"the process pool broke {NUM_ATTEMPTS} times in a row")

    async def _answer(self, pool: ProcessPool, answer: asyncio.Future[Any]) -> Any:
        """The answer's result. Raises `RuntimeError` when the pool will not give one.

        A pool that breaks forgets the calls in its queue, and one whose process was killed at a bad moment keeps a
        lock for ever; so the pool is looked at while the call waits.
        """
        asked_s = time.monotonic()
        try:
            while not answer.done():
                await asyncio.wait({answer}, timeout=WATCH_INTERVAL_S)
                silent_s = time.monotonic() - max(asked_s, self._heard_s)
                if not answer.done() and (not pool.active or silent_s > self._silence_limit_s):
                    raise BrokenProcessPool("no sign of life")
            self._heard_s = time.monotonic()
            return answer.result()
        finally:
            answer.cancel()

    def _open(self) -> ProcessPool:
        # spawn: a fork would copy the locks of this process's threads, and its memory.
        return ProcessPool(
            max_workers=self._num_processes,
            initializer=pool_process.initialise,
            initargs=self._initargs,
            context=multiprocessing.get_context("spawn"),
        )

    def _replace(self, pool: ProcessPool) -> None:
        """Leave a pool that is of no more use; the first of several callers that lost a call to it does the work."""
        if pool is self._pool and not self._closed:
            self._pool = self._open()
            asyncio.get_running_loop().run_in_executor(None, _stop, pool)


def _stop(pool: ProcessPool) -> None:
    pool.stop()
    pool.join()
