"""The local runtime: every role in this process; the handle is the object."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractAsyncContextManager
from typing import Any

from rlhf_cluster.runtime.spec import RoleSpec


class LocalRuntime:
    """For one machine, tests and debugging: a breakpoint anywhere in any role works."""

    one_process = True

    def __init__(self) -> None:
        self._starting = asyncio.Lock()

    async def open(self, spec: RoleSpec) -> Any:
        # Roles share one process, so the first one's environment holds; what the user has set goes before all.
        for name, value in spec.environment.items():
            os.environ.setdefault(name, value)
        return spec.build()

    async def placed(self, handle: Any) -> None:
        pass

    async def pending_reason(self, spec: RoleSpec) -> str:
        return ""

    def starting(self) -> AbstractAsyncContextManager[Any]:
        # Loading a model switches torch's default dtype and device for the whole process while it lasts.
        return self._starting

    async def close(self) -> None:
        pass
