"""Waiting for a role that may hang: progress is what counts, and the answer is let go when there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlhf_cluster.errors import LearnerError, RoleDied, RoleHung
from rlhf_cluster.records import WorkerStatus
from rlhf_cluster.runtime.watch import watched


class Handle:
    """Tells a status whose tokens grow or stand still, or tells none."""

    def __init__(self, *, grows: bool = True, silent: bool = False, fails: Exception | None = None) -> None:
        self.grows = grows
        self.silent = silent
        self.fails = fails
        self.tokens_total = 0

    async def status(self) -> WorkerStatus:
        if self.fails:
            raise self.fails
        if self.silent:
            await asyncio.Event().wait()
        self.tokens_total += self.grows
        return WorkerStatus(
            role="rollout worker",
            worker_id="rollout-3",
            state="busy",
            activity="step 7",
            tokens_total=self.tokens_total,
        )


class TellsStacks(Handle):
    async def stacks(self) -> str:
        return "stacks of rollout-3\nthread 1 ..."


class HidesStacks(Handle):
    async def stacks(self) -> str:
        raise RoleDied("gone")


def wait(answer: Any, handle: Handle, *, counts_tokens: bool = True) -> Any:
    return asyncio.run(
        watched(
            answer,
            handle=handle,
            stall_s=0.06,
            unresponsive_s=0.06,
            poll_s=0.01,
            role="rollout worker",
            worker_id="rollout-3",
            activity="generating",
            counts_tokens=counts_tokens,
        )
    )


async def slow_answer() -> str:
    await asyncio.sleep(0.2)
    return "yes"


async def never() -> None:
    await asyncio.Event().wait()


def test_an_answer_may_take_as_long_as_it_likes_while_tokens_grow():
    assert wait(slow_answer(), Handle()) == "yes"


def test_where_tokens_do_not_count_telling_a_status_is_enough():
    assert wait(slow_answer(), Handle(grows=False), counts_tokens=False) == "yes"


def test_no_progress_is_named_with_what_the_role_says_and_where_its_stacks_are():
    with pytest.raises(RoleHung) as raised:
        wait(never(), TellsStacks(grows=False))
    error = raised.value
    assert str(error) == (
        "rollout worker rollout-3 has made no progress for 0.06 s (it says: step 7) while generating; "
        "stacks of rollout-3"
    )
    assert (error.role, error.worker_id, error.activity) == ("rollout worker", "rollout-3", "generating")


def test_silence_is_named_even_where_the_stacks_cannot_be_had():
    with pytest.raises(RoleHung, match=r"has not told its status for 0.06 s while generating; it does not tell where"):
        wait(never(), HidesStacks(silent=True))


def test_a_role_in_this_process_has_no_stacks_of_its_own():
    with pytest.raises(RoleHung, match="it runs in this process"):
        wait(never(), Handle(silent=True))


def test_what_the_answer_or_the_status_raises_is_raised_as_it_is():
    async def fail() -> None:
        raise LearnerError("the loss is nan")

    with pytest.raises(LearnerError, match="the loss is nan"):
        wait(fail(), Handle())
    with pytest.raises(RoleDied, match="gone"):
        wait(never(), Handle(fails=RoleDied("gone")))


def test_the_answer_of_a_hung_role_is_cancelled():
    cancelled = []

    async def tells_its_end() -> None:
        try:
            await never()
        finally:
            cancelled.append(True)

    with pytest.raises(RoleHung):
        wait(tells_its_end(), Handle(grows=False))
    assert cancelled == [True]
