"""Bounded waits: what arrives in time passes through, what does not is named."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from rlhf_cluster.errors import LearnerError, RoleTimeout
from rlhf_cluster.runtime.bounds import each_within, within

WHERE = {"role": "rollout worker", "worker_id": "rollout-3", "activity": "generating 4 groups"}


async def answer(value: Any) -> Any:
    return value


async def never() -> None:
    await asyncio.Event().wait()


async def numbers(*, then: Any = None):
    for number in range(3):
        yield number
    if then is not None:
        await then()


async def collect(stream: Any, *, seconds: float = 0.05) -> list[int]:
    return [number async for number in each_within(seconds, stream, **WHERE)]


def test_an_answer_in_time_is_returned():
    assert asyncio.run(within(5, answer("yes"), **WHERE)) == "yes"


def test_a_late_answer_names_role_worker_activity_and_where_the_bound_is_set():
    with pytest.raises(RoleTimeout) as raised:
        asyncio.run(within(0.05, never(), **WHERE))
    error = raised.value
    assert (error.role, error.worker_id, error.activity) == ("rollout worker", "rollout-3", "generating 4 groups")
    assert "rollout worker rollout-3 did not answer within 0.05 s while generating 4 groups; see [limits]" in str(error)


def test_what_the_role_raises_passes_through():
    async def fail() -> None:
        raise LearnerError("the loss is nan")

    with pytest.raises(LearnerError, match="the loss is nan"):
        asyncio.run(within(5, fail(), **WHERE))


def test_a_stream_in_time_comes_whole():
    assert asyncio.run(collect(numbers())) == [0, 1, 2]


def test_the_bound_of_a_stream_holds_for_each_message():
    async def slowly():
        for number in range(4):
            await asyncio.sleep(0.02)
            yield number

    assert asyncio.run(collect(slowly(), seconds=0.06)) == [0, 1, 2, 3]


def test_a_stream_that_stalls_is_named_after_what_it_has_given():
    got = []

    async def read() -> None:
        async for number in each_within(0.05, numbers(then=never), **WHERE):
            got.append(number)

    with pytest.raises(RoleTimeout, match="rollout-3"):
        asyncio.run(read())
    assert got == [0, 1, 2]


def test_a_stream_that_is_no_longer_read_is_told_at_once():
    aborted = []

    async def endless():
        try:
            while True:
                yield 0
        finally:
            aborted.append(True)

    async def read_one() -> None:
        async with aclosing(each_within(5, endless(), **WHERE)) as stream:
            await anext(stream)
        assert aborted == [True]

    asyncio.run(read_one())


def test_a_stalled_stream_is_told_so_that_it_can_abort_its_work():
    aborted = []

    async def stalls():
        try:
            await asyncio.Event().wait()
            yield 0
        finally:
            aborted.append(True)

    with pytest.raises(RoleTimeout):
        asyncio.run(collect(stalls()))
    assert aborted == [True]
