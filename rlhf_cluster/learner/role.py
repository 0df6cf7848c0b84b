"""A learner rank as a role: the async surface that the group calls, over one thread that computes."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Mapping, Sequence
from concurrent import futures
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import distributed

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.compute_thread import ComputeThread
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import Batch, RolloutGroup, StepReport, WeightHandle, WorkerStatus

if TYPE_CHECKING:
    from rlhf_cluster.roles import WeightTransport


class LearnerRole:
    """One rank. It computes in one thread and writes files in another, so `status` answers during both."""

    def __init__(self, spec: LearnerSpec, *, rank: int, num_ranks: int, transport: WeightTransport) -> None:
        self.spec = spec
        self.rank = rank
        self.num_ranks = num_ranks
        self.transport = transport
        self._learner: LearnerRank | None = None
        self._thread = ComputeThread(f"learner-{rank}", role="learner")
        self._writer = futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"learner-{rank}-writer")
        self._writing: futures.Future[None] | None = None
        """Of the save begun last."""

    async def rendezvous(self) -> str:
        """`tcp://address:port` on this rank's node where the group can meet; asked of rank 0."""
        with socket.socket() as probe:
            probe.bind((_own_address(), 0))
            address, port = probe.getsockname()
        return f"tcp://{address}:{port}"

    async def start(self, meeting_point: str | None) -> None:
        """Load the model and meet the other ranks. `meeting_point` None is a group of one."""
        await self._thread.run("loading the model", self._open, meeting_point)

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

    async def accumulate(self, algorithm: Algorithm, groups: Sequence[RolloutGroup], *, step: int) -> None:
        learn = partial(self._opened().accumulate, algorithm, groups, step=step)
        await self._thread.run(f"learning {len(groups)} groups of step {step} early", learn)

    async def update(self, algorithm: Algorithm, batch: Batch) -> StepReport:
        return await self._thread.run(f"updating on step {batch.step}", self._opened().update, algorithm, batch)

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        return await self._thread.run(f"scoring {len(groups)} groups", self._opened().score, groups)

    async def assess(self, algorithm: Algorithm, groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
        activity = f"assessing {len(groups)} held-out groups"
        return await self._thread.run(activity, self._opened().assess, algorithm, groups)

    async def publish(self) -> WeightHandle | None:
        return await self._thread.run("publishing weights", self._opened().publish)

    async def publish_full(self) -> WeightHandle:
        """Rank 0 alone. Not in the thread that computes: a joiner does not wait for an update."""
        return await asyncio.to_thread(self._opened().publish_full)

    async def save(self, path: Path, *, with_state: bool) -> None:
        """Write this rank as it is between the calls made before and those made later, which wait for a copy and not
        for the files. Returns when they are written; raises `StorageError`."""
        writing = await self._thread.run(f"copying for {path.name}", self._begin_writing, path, with_state)
        await asyncio.wrap_future(writing)

    def _begin_writing(self, path: Path, with_state: bool) -> futures.Future[None]:
        # In the thread that computes, so that there is never more than one copy, and it is of its place in the order.
        if self._writing is not None:
            futures.wait([self._writing])
        snapshot = self._opened().snapshot(with_state=with_state)
        self._writing = self._writer.submit(snapshot.write, path)
        return self._writing

    async def load(self, path: Path) -> None:
        await self._thread.run(f"loading {path.name}", self._opened().load, path)

    async def status(self) -> WorkerStatus:
        learner = self._learner
        if learner is None:
            return self._thread.status(ready=False)
        return self._thread.status(ready=True, version=learner.version, tokens_total=learner.tokens_total)

    async def close(self) -> None:
        """Files being written are finished, not waited for."""
        try:
            await self._thread.close(None if self._learner is None else self._free)
        finally:
            self._writer.shutdown(wait=False)

    def _free(self) -> None:
        self.transport.close()
        self._learner = None
        # With one rank there is no group of ours; in the local runtime the one there is belongs to vLLM.
        if self.num_ranks > 1:
            # Before the group: where a DDP reducer holds it last, it is destroyed without giving up the GIL, and joins
            # a thread of Gloo's which may be waiting for the GIL to let go of a tensor. That never ends.
            gc.collect()
            distributed.destroy_process_group()

    def _opened(self) -> LearnerRank:
        assert self._learner is not None, "start() comes first"
        return self._learner


def _own_address() -> str:
    """The address of this node that others reach; loopback when it has no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: nothing is sent, the kernel only picks a source address
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
