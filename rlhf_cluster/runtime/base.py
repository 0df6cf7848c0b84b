"""The interface of a runtime, which opens roles somewhere, and the choice of one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from rlhf_cluster.config import JobConfig
from rlhf_cluster.runtime import ray_environment
from rlhf_cluster.runtime.spec import RoleSpec


class Runtime(Protocol):
    """Where roles run."""

    one_process: bool
    """Whether roles share a process; then they start one after another."""

    async def open(self, spec: RoleSpec) -> Any:
        """Build the role somewhere and return its handle; the role may still be loading its model."""
        ...

    async def placed(self, handle: Any) -> None:
        """Return as soon as the role has a machine and a process there; `RoleDied` where it never will."""
        ...

    async def pending_reason(self, spec: RoleSpec) -> str:
        """What a role that is not placed yet waits for, in words."""
        ...

    def starting(self) -> AbstractAsyncContextManager[Any]:
        """To be held while a role starts: where roles share a process, they start one after another."""
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
