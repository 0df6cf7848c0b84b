"""The open roles of a job, and the interface of a runtime that opens them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.runtime import ray_environment
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.spec import RoleSpec, open_transport, role_specs

if TYPE_CHECKING:
    from rlhf_cluster.roles import ReferenceScorer, RewardServer, RolloutWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Handles of everything that was started; locally a handle is the object itself."""

    rollout_workers: dict[str, RolloutWorker]
    reward_servers: dict[str, RewardServer]
    reference_scorers: dict[str, ReferenceScorer]
    learner: LearnerGroup

    @classmethod
    def of(cls, specs: Sequence[RoleSpec], handles: Mapping[str, Any]) -> Roles:
        def named(role: str) -> dict[str, Any]:
            return {spec.worker_id: handles[spec.worker_id] for spec in specs if spec.role == role}

        return cls(
            rollout_workers=named("rollout worker"),
            reward_servers=named("reward server"),
            reference_scorers=named("reference scorer"),
            learner=LearnerGroup(list(named("learner").values())),
        )


class Runtime(Protocol):
    """Where roles run."""

    one_process: bool
    """Whether roles share a process; then they start one after another."""

    async def open(self, spec: RoleSpec) -> Any:
        """Build the role somewhere and return its handle; the role may still be loading its model."""
        ...

    async def close(self) -> None:
        """End what the runtime itself started. Roles are closed before."""
        ...


@asynccontextmanager
async def open_runtime(job: JobConfig) -> AsyncGenerator[Runtime]:
    """The runtime that `runtime` names."""
    if job.runtime == "local":
        from rlhf_cluster.runtime.local import LocalRuntime

        runtime: Runtime = LocalRuntime()
    else:
        ray_environment.prepare(private=job.ray.address is None)
        from rlhf_cluster.runtime.ray import RayRuntime

        runtime = await RayRuntime.start(job)
    try:
        yield runtime
    finally:
        await runtime.close()


@asynccontextmanager
async def open_roles(
    runtime: Runtime, job: JobConfig, *, job_dir: Path, probe_token_ids: np.ndarray
) -> AsyncGenerator[Roles]:
    """Start every role the job needs, and close them at the end whatever happened in between."""
    specs = role_specs(job, transport=open_transport(job, job_dir=job_dir), probe_token_ids=probe_token_ids)
    handles: dict[str, Any] = {}
    try:
        for spec in specs:
            handles[spec.worker_id] = await runtime.open(spec)
        roles = Roles.of(specs, handles)
        await start_roles(runtime, specs, handles, roles, bound_s=job.limits.start_s)
        yield roles
    finally:
        await asyncio.gather(
            *(_close(spec, handles[spec.worker_id], bound_s=job.limits.close_s) for spec in specs[: len(handles)]),
            return_exceptions=True,
        )


async def start_roles(
    runtime: Runtime, specs: list[RoleSpec], handles: dict[str, Any], roles: Roles, *, bound_s: float
) -> None:
    """Bring up every role; the ranks of the learner start together, as one."""
    startable = [(spec.role, spec.worker_id, handles[spec.worker_id]) for spec in specs if spec.role != "learner"]
    startable.append(("learner", "learner-0", roles.learner))

    # A function, so that a start which never gets its turn leaves no coroutine behind.
    async def start_one(role: str, worker_id: str, handle: Any) -> None:
        await within(bound_s, handle.start(), role=role, worker_id=worker_id, activity="starting")

    if runtime.one_process:
        # Loading a model switches torch's default dtype and device for the whole process while it lasts.
        for one in startable:
            await start_one(*one)
        return
    try:
        async with asyncio.TaskGroup() as together:
            for one in startable:
                together.create_task(start_one(*one))
    except BaseExceptionGroup as group:
        # The others were cancelled because of the first: one clear message beats a tree of them.
        raise group.exceptions[0] from None


async def _close(spec: RoleSpec, handle: Any, *, bound_s: float) -> None:
    await within(bound_s, handle.close(), role=spec.role, worker_id=spec.worker_id, activity="closing")
