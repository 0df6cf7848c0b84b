"""The local runtime: every role in this process; the handle is the object."""

from __future__ import annotations

import os
from typing import Any

from rlhf_cluster.runtime.spec import RoleSpec


class LocalRuntime:
    """For one machine, tests and debugging: a breakpoint anywhere in any role works."""

    one_process = True

    async def open(self, spec: RoleSpec) -> Any:
        # Roles share one process, so the first one's environment holds; what the user has set goes before all.
        for name, value in spec.environment.items():
            os.environ.setdefault(name, value)
        return spec.build()

    async def close(self) -> None:
        pass
