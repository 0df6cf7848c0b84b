"""Starting the roles of a job when one of them fails: the error is the first one, and nothing is left un-awaited."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import Any

import pytest

from rlhf_cluster.errors import ModelError
from rlhf_cluster.runtime.roles import Roles


class Startable:
    """In the place of a pool or a learner."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.started = False
        self.closed = False

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self.fails:
            raise ModelError("no model here")
        self.started = True

    async def aclose(self) -> None:
        self.closed = True


def start(*, one_process: bool, failing: str | None = None) -> dict[str, Startable]:
    parts: dict[str, Any] = {name: Startable(fails=name == failing) for name in ("rollout", "reward", "learner")}
    roles = Roles(**parts, reference=None)

    async def whole() -> None:
        try:
            await roles.start(one_process=one_process)
        finally:
            await roles.aclose()

    try:
        asyncio.run(whole())
    finally:
        assert all(part.closed for part in parts.values())
    return parts


@pytest.mark.parametrize("one_process", [True, False])
def test_every_role_starts(one_process):
    assert all(part.started for part in start(one_process=one_process).values())


@pytest.mark.parametrize("one_process", [True, False])
@pytest.mark.parametrize("failing", ["rollout", "reward", "learner"])
def test_a_failed_start_is_raised_as_it_is_and_leaves_no_coroutine_behind(one_process, failing):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ModelError, match="no model here"):
            start(one_process=one_process, failing=failing)
        gc.collect()
    assert [str(warning.message) for warning in caught if "never awaited" in str(warning.message)] == []
