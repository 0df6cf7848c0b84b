"""A learner rank as a role: the async surface that the group calls, over one thread that computes."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import torch
from torch import distributed

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import Batch, StepReport, WeightHandle, WorkerStatus

if TYPE_CHECKING:
    from rlhf_cluster.roles import WeightTransport

Result = TypeVar("Result")


class LearnerRole:
    """One rank. All its work runs in one thread, so `status` answers while a step is computed."""

    def __init__(self, spec: LearnerSpec, *, rank: int, num_ranks: int, transport: WeightTransport) -> None:
        self.spec = spec
        self.rank = rank
        self.num_ranks = num_ranks
        self.transport = transport
        self.worker_id = f"learner-{rank}"
        self.activity = "starting"
        self.tokens_total = 0
        self.busy_s = 0.0
        self._learner: LearnerRank | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.worker_id)

    async def rendezvous(self) -> str:
        """`tcp://address:port` on this rank's node where the group can meet; asked of rank 0."""
        with socket.socket() as probe:
            probe.bind((_own_address(), 0))
            address, port = probe.getsockname()
        return f"tcp://{address}:{port}"

    async def start(self, meeting_point: str | None) -> None:
        """Load the model and meet the other ranks. `meeting_point` None is a group of one."""
        await self._in_thread("loading the model", self._open, meeting_point)

    def _open(self, meeting_point: str | None) -> None:
        torch.set_num_threads(self.spec.settings.threads)
        if meeting_point:
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                init_method=meeting_point,
                rank=self.rank,
                world_size=self.num_ranks,
                timeout=timedelta(seconds=self.spec.settings.collective_timeout_s),
            )
        self._learner = LearnerRank(self.spec, rank=self.rank, num_ranks=self.num_ranks, transport=self.transport)

    async def update(self, algorithm: Algorithm, batch: Batch) -> StepReport:
        report = await self._in_thread(f"updating on step {batch.step}", self._opened().update, algorithm, batch)
        self.tokens_total += batch.num_tokens
        return report

    async def publish(self) -> WeightHandle | None:
        return await self._in_thread("publishing weights", self._opened().publish)

    async def save(self, path: Path, *, with_state: bool) -> None:
        await self._in_thread(f"saving {path.name}", lambda: self._opened().save(path, with_state=with_state))

    async def load(self, path: Path) -> None:
        await self._in_thread(f"loading {path.name}", self._opened().load, path)

    async def status(self) -> WorkerStatus:
        return WorkerStatus(
            role="learner",
            worker_id=self.worker_id,
            state="starting" if self._learner is None else "busy" if self.activity else "idle",
            activity=self.activity,
            version=self._learner.version if self._learner else -1,
            tokens_total=self.tokens_total,
            busy_s=self.busy_s,
            rss_bytes=psutil.Process().memory_info().rss,
            process_id=os.getpid(),
        )

    async def close(self) -> None:
        if self._learner is not None:
            learner, self._learner = self._learner, None
            await self._in_thread("closing", learner.close)
        self._thread.shutdown(wait=False)

    def _opened(self) -> LearnerRank:
        assert self._learner is not None, "start() comes first"
        return self._learner

    async def _in_thread(self, activity: str, function: Callable[..., Result], *arguments: Any) -> Result:
        self.activity = activity
        started = time.perf_counter()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        finally:
            self.activity = ""
            self.busy_s += time.perf_counter() - started


def _own_address() -> str:
    """The address of this node that others reach; loopback when it has no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: nothing is sent, the kernel only picks a source address
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
