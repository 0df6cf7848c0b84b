"""Starting roles when one of them fails: the error is the first one, and nothing is left un-awaited."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from rlhf_cluster.errors import ModelError
from rlhf_cluster.runtime.local import LocalRuntime
from rlhf_cluster.runtime.roles import Roles, start_roles
from rlhf_cluster.runtime.spec import RoleSpec


class Startable:
    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.started = False

    async def start(self, meeting_point: str | None = None) -> None:
        if self.fails:
            raise ModelError("no model here")
        self.started = True


class SeparateProcesses(LocalRuntime):
    one_process = False


def start(runtime: LocalRuntime, *, failing: str | None = None) -> dict[str, Startable]:
    roles = {"rollout-0": "rollout worker", "rollout-1": "rollout worker", "learner-0": "learner"}
    handles = {worker_id: Startable(fails=worker_id == failing) for worker_id in roles}
    specs = [
        RoleSpec(role=role, worker_id=worker_id, factory="", arguments={}, cpus=1, gpus=0)
        for worker_id, role in roles.items()
    ]
    asyncio.run(start_roles(runtime, specs, handles, Roles.of(specs, handles), bound_s=30))
    return handles


@pytest.mark.parametrize("runtime", [LocalRuntime(), SeparateProcesses()])
def test_every_role_starts(runtime):
    assert all(handle.started for handle in start(runtime).values())


@pytest.mark.parametrize("runtime", [LocalRuntime(), SeparateProcesses()])
@pytest.mark.parametrize("failing", ["rollout-0", "rollout-1", "learner-0"])
def test_a_failed_start_leaves_no_coroutine_behind(runtime, failing):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises((ModelError, ExceptionGroup)):
            start(runtime, failing=failing)
        gc.collect()
    assert [str(warning.message) for warning in caught if "never awaited" in str(warning.message)] == []
