"""Every wait of the driver for a role passes through here: bounded, and named when the bound is reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from rlhf_cluster.errors import RoleTimeout

Result = TypeVar("Result")


async def within(seconds: float, answer: Awaitable[Result], *, role: str, worker_id: str, activity: str) -> Result:
    """Await `answer`; after `seconds` raise `RoleTimeout` that names the role, the worker and what it was doing."""
    try:
        return await asyncio.wait_for(answer, seconds)
    except TimeoutError as error:
        raise _timeout(seconds, role, worker_id, activity) from error


async def each_within(
    seconds: float, stream: AsyncIterator[Result], *, role: str, worker_id: str, activity: str
) -> AsyncIterator[Result]:
    """Yield from `stream`; the bound holds for every single message, not for the whole."""
    try:
        while True:
            try:
                yield await asyncio.wait_for(anext(stream), seconds)
            except StopAsyncIteration:
                return
    except TimeoutError as error:
        raise _timeout(seconds, role, worker_id, activity) from error


def _timeout(seconds: float, role: str, worker_id: str, activity: str) -> RoleTimeout:
    return RoleTimeout(
        f"{role} {worker_id} did not answer within {seconds:g} s while {activity}; see [limits] to allow more",
        role=role,
        worker_id=worker_id,
        activity=activity,
    )
