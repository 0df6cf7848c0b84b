"""Keeps watch over the rollout workers that have work: asks the quiet ones, and says which of them hang.

What counts is progress, token by token: a worker that answers pings can be stuck. `flow/stalls.py` decides; this asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.errors import RoleError, RoleHung
from rlhf_cluster.flow.stalls import Hedge, ProgressWatch

if TYPE_CHECKING:
    from rlhf_cluster.roles import RolloutWorker

MAX_POLL_S = 5.0


class Vigil:
    def __init__(
        self,
        job: JobConfig,
        *,
        handle_of: Callable[[str], RolloutWorker | None],
        hedge: Callable[[str], None],
        lost: Callable[[str, RoleError], None],
        clock: Clock,
    ) -> None:
        """`handle_of` gives None for a worker that has left; `hedge` and `lost` are told of silent ones."""
        recovery = job.recovery
        self.poll_s = min(MAX_POLL_S, recovery.hedge_s / 4, recovery.unresponsive_s / 4)
        self._progress = ProgressWatch(
            hedge_s=recovery.hedge_s, stall_s=recovery.stall_s, unresponsive_s=recovery.unresponsive_s
        )
        self._handle_of = handle_of
        self._hedge = hedge
        self._lost = lost
        self._clock = clock
        self._asked: set[str] = set()

    def sent(self, worker_id: str) -> None:
        """It was given work."""
        self._progress.sent(worker_id, self._clock.monotonic())

    def heard(self, worker_id: str, *, has_work: bool) -> None:
        """It gave groups."""
        if has_work:
            self._progress.heard(worker_id, self._clock.monotonic())
        else:
            self._progress.idle(worker_id)

    def paused(self, worker_id: str) -> None:
        """It adopts weights and makes no tokens meanwhile; its clock stands until `resumed`."""
        self._progress.paused(worker_id, self._clock.monotonic())

    def resumed(self, worker_id: str) -> None:
        self._progress.resumed(worker_id, self._clock.monotonic())

    def forget(self, worker_id: str) -> None:
        self._progress.forget(worker_id)

    async def keep(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Runs until it is cancelled; `spawn` starts what must not hold it up."""
        while True:
            await asyncio.sleep(self.poll_s)
            now_s = self._clock.monotonic()
            for worker_id in self._progress.ask(now_s):
                handle = self._handle_of(worker_id)
                if handle is not None and worker_id not in self._asked:
                    self._asked.add(worker_id)
                    spawn(self._ask(worker_id, handle))
            for verdict in self._progress.verdicts(now_s):
                if isinstance(verdict, Hedge):
                    self._hedge(verdict.worker_id)
                else:
                    where = {"role": "rollout worker", "worker_id": verdict.worker_id, "activity": "generating"}
                    self._lost(verdict.worker_id, RoleHung(f"{verdict.worker_id} hangs: {verdict.sentence}", **where))

    async def _ask(self, worker_id: str, handle: RolloutWorker) -> None:
        try:
            async with asyncio.timeout(self.poll_s):
                status = await handle.status()
            self._progress.status(worker_id, status.tokens_total, self._clock.monotonic())
        except TimeoutError:
            self._progress.silent(worker_id, self._clock.monotonic())
        except RoleError as error:
            self._lost(worker_id, error)
        finally:
            self._asked.discard(worker_id)
