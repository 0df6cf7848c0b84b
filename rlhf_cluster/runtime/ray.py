"""The Ray runtime: one actor a replica. This package is the only importer of ray.

Actors have no restarts and no retries of their own: a role that dies is the driver's to see, at once and by name.
"""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import ray

from rlhf_cluster.config import JobConfig
from rlhf_cluster.errors import CannotFit, RoleError
from rlhf_cluster.runtime import autoscaler
from rlhf_cluster.runtime.handles import HANDLES, RemoteRole
from rlhf_cluster.runtime.host import RoleHost
from rlhf_cluster.runtime.placement import reservations
from rlhf_cluster.runtime.spec import RoleSpec
from rlhf_cluster.settings import OF_THEIR_OWN

START_ATTEMPTS = 3
ELASTIC_WORKERS = 16
"""Rollout workers that a private cluster has room for besides those that the job starts with."""
MAX_CALLS = 10_000
"""That an actor has under way at one time. A worker may have a stream for each prompt that it holds; with no call left
its status could not be asked, and it would pass for one that hangs. They cost nothing until they are made."""


class RayRuntime:
    """Connects to a cluster, or starts a private one that ends with the job."""

    one_process = False

    def __init__(self, private_dir: Path | None) -> None:
        self._private_dir = private_dir
        self._handles: list[RemoteRole] = []

    @classmethod
    async def start(cls, job: JobConfig) -> RayRuntime:
        """Raises `CannotFit` when the cluster has less in total than the roles reserve, and nobody adds nodes to it."""
        if job.ray.address:
            await asyncio.to_thread(ray.init, address=job.ray.address, log_to_driver=False, logging_level=logging.ERROR)
            runtime = cls(None)
        else:
            runtime = cls(await asyncio.to_thread(_start_private_cluster, job))
        try:
            if not await asyncio.to_thread(autoscaler.is_at_work):
                _refuse_what_never_fits(job, ray.cluster_resources())
        except CannotFit:
            await runtime.close()
            raise
        return runtime

    async def open(self, spec: RoleSpec) -> RemoteRole:
        host = ray.remote(RoleHost).options(
            name=None,
            num_cpus=spec.cpus,
            num_gpus=spec.gpus,
            resources=dict(spec.resources),
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=MAX_CALLS,
            runtime_env={"env_vars": dict(spec.environment)},
        )
        handle = HANDLES[spec.role](host.remote(spec), role=spec.role, worker_id=spec.worker_id)
        self._handles.append(handle)
        return handle

    async def placed(self, handle: RemoteRole) -> None:
        await handle.placed()

    async def pending_reason(self, spec: RoleSpec) -> str:
        wanted = {"CPU": spec.cpus, "GPU": spec.gpus, **spec.resources}
        return await asyncio.to_thread(_what_it_waits_for, wanted)

    def starting(self) -> AbstractAsyncContextManager[Any]:
        return nullcontext()

    async def close(self) -> None:
        for handle in self._handles:
            handle.kill()
        await asyncio.to_thread(ray.shutdown)
        if self._private_dir:
            await asyncio.to_thread(_remove, self._private_dir)


def _remove(directory: Path) -> None:
    """Ray's processes write to their logs while they die, for a second or so."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)


def _start_private_cluster(job: JobConfig) -> Path:
    """A cluster of this machine alone, with its own directory, ports and token. Returns the directory."""
    for attempt in range(START_ATTEMPTS):
        # Short, because Ray puts unix sockets below it and their paths end at 107 characters.
        directory = Path(tempfile.mkdtemp(prefix="rlhf-", dir="/tmp"))
        try:
            ray.init(
                # Bookkeeping: on a laptop the roles take turns, and threads are what the cores really bear.
                num_cpus=job.ray.num_cpus or _private_cpus(job),
                include_dashboard=False,
                object_store_memory=int(job.ray.object_store_gib * 2**30),
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(directory),
            )
        except Exception as error:
            # Ray raises a bare Exception when its node processes were slow to come up; a fresh directory cures it.
            shutil.rmtree(directory, ignore_errors=True)
            if attempt + 1 == START_ATTEMPTS:
                raise RoleError(f"a private Ray cluster did not start in {START_ATTEMPTS} attempts: {error}") from error
        else:
            return directory
    raise AssertionError("unreachable")


def _private_cpus(job: JobConfig) -> int:
    """What the job reserves, its spares, and room to scale out."""
    num_more = ELASTIC_WORKERS
    if job.autoscale:
        num_more = max(num_more, job.autoscale.max_workers - job.rollout.num_workers)
    return max(1, math.ceil(reservations(job, spares=True)["CPU"] + num_more * job.rollout.cpus))


def _what_it_waits_for(wanted: Mapping[str, float]) -> str:
    """In words, from what the nodes have in all and free. Ray tells of no single actor why it waits."""
    wanted = {name: amount for name, amount in wanted.items() if amount}
    if not wanted:
        return "its process is starting"
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    in_all, free = ray.cluster_resources(), ray.available_resources()
    if not any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        most = ", ".join(_amount(max((node.get(name, 0) for node in nodes), default=0), name) for name in wanted)
        has = f"the cluster has no node with so many, the largest has {most}"
    else:
        has = "the cluster has " + ", ".join(
            f"{_amount(in_all.get(name, 0), name)} in all and {_amount(free.get(name, 0), name)} free"
            for name in wanted
        )
    text = f"wants {' and '.join(_amount(amount, name) for name, amount in wanted.items())}; {has}"
    is_short = any(free.get(name, 0) < amount for name, amount in wanted.items())
    new_nodes = autoscaler.what_it_does_for(wanted) if is_short else ""
    return f"waiting for a node: {text}; {new_nodes}" if new_nodes else text


def _amount(amount: float, name: str) -> str:
    """`1 GPU`, `4 CPUs`, `2 rollout`."""
    return f"{amount:g} {name}s" if name in ("CPU", "GPU") and amount != 1 else f"{amount:g} {name}"


def _refuse_what_never_fits(job: JobConfig, resources: Mapping[str, float]) -> None:
    for name, wanted in reservations(job, spares=False).items():
        if wanted > resources.get(name, 0):
            raise CannotFit(
                f"the roles reserve {_amount(wanted, name)} and the Ray cluster has {resources.get(name, 0):g}: "
                f"lower num_workers, num_ranks or {OF_THEIR_OWN.get(name, f'resources.{name}')} per role, or add nodes "
                "(`rlhf plan` shows each role)"
            )
