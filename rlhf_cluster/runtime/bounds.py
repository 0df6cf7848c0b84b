"""Every wait of the driver for a role passes through here: bounded, and named when the bound is reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import TypeVar

from rlhf_cluster.errors import RoleTimeout

Result = TypeVar("Result")


async def within(seconds: float, answer: Awaitable[Result], *, role: str, worker_id: str, activity: str) -> Result:
    """Await `answer`; after `seconds` raise `RoleTimeout` that names the role, the worker and what it was doing."""
    # Not `asyncio.wait_for`, which before Python 3.12 loses a cancellation that comes together with the answer.
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError as error:
        raise _timeout(seconds, role, worker_id, activity) from error


async def each_within(
    seconds: float, stream: AsyncIterator[Result], *, role: str, worker_id: str, activity: str
) -> AsyncGenerator[Result]:
    """Yield from `stream`; the bound holds for every single message, not for the whole.

    Closing this closes `stream` too, so that a role stops working for a reader that is gone.
    """
    try:
        while True:
            try:
                async with asyncio.timeout(seconds):
                    message = await anext(stream)
            except StopAsyncIteration:
                return
            yield message
    except TimeoutError as error:
        raise _timeout(seconds, role, worker_id, activity) from error
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


def _timeout(seconds: float, role: str, worker_id: str, activity: str) -> RoleTimeout:
    return RoleTimeout(
        f"{role} {worker_id} did not answer within {seconds:g} s while {activity}; see [limits] to allow more",
        role=role,
        worker_id=worker_id,
        activity=activity,
    )
