"""Sampling large sets: in order, so many under way and no more, whichever workers answer, die or join."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

from rlhf_cluster.driver import sampler as sampler_module
from rlhf_cluster.records import RolloutGroup, RolloutRequest, Sampling
from rlhf_cluster.testing import fake_roles, make_job, scripted_worker
from rlhf_cluster.testing.faults import FaultPlan
from rlhf_cluster.testing.faulty_roles import with_faults
from rlhf_cluster.testing.fleet import SimulatedRuntime

FROM = 1 << 42
TWO_WORKERS = ["rollout.num_workers=2", "recovery.max_restarts=30"]


class Reading:
    """Streams `num` prompts and notes how many requests were taken ahead of what was handed on."""

    def __init__(self, driver: Any, prompts: Any, *, num: int) -> None:
        self.groups: list[RolloutGroup] = []
        self.lost: list[str] = []
        self.most_ahead = 0
        self._num = num
        self.sampler = driver.evaluator.sampler
        self._prompts = prompts

    def requests(self) -> Iterator[RolloutRequest]:
        for number in range(self._num):
            self.most_ahead = max(self.most_ahead, number + 1 - len(self.groups))
            yield self.sampler.request(
                FROM + number, self._prompts[number], num_completions=2, sampling=Sampling(max_new_tokens=8)
            )

    async def read(self) -> Reading:
        def quarantine(prompt: Any, evidence: tuple[str, ...]) -> None:
            self.lost.append(prompt.prompt_id)

        async with aclosing(self.sampler.stream(self.requests(), quarantine=quarantine)) as stream:
            async for groups in stream:
                self.groups += groups
        return self


def read(made: Any, *, num: int = 20) -> Reading:
    async def act(driver: Any, roles: Any) -> Reading:
        await made.serve(driver)
        return await Reading(driver, made.prompts.train, num=num).read()

    return made.play(act)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_groups_come_in_the_order_of_the_prompts_and_do_not_depend_on_the_workers(stage, num_workers):
    workers = [scripted_worker(f"rollout-{number}") for number in range(num_workers)]
    many = read(stage(make_job([f"rollout.num_workers={num_workers}"]), fake_roles(*workers)))
    alone = read(stage(make_job()))
    assert [group.request_id - FROM for group in many.groups] == list(range(20))
    assert [group.token_ids.tolist() for group in many.groups] == [group.token_ids.tolist() for group in alone.groups]
    assert len({group.worker_id for group in many.groups}) == num_workers
    assert all(len(group.texts) == 2 for group in many.groups)


def test_no_more_is_under_way_than_the_window_allows(stage, monkeypatch):
    monkeypatch.setattr(sampler_module, "WINDOW_COMPLETIONS", 8)
    reading = read(stage(make_job()), num=30)
    assert len(reading.groups) == 30
    assert 4 <= reading.most_ahead <= 2 * 4, "a window of four prompts beside the block that is being read"


def test_an_empty_set_is_done_at_once(stage):
    assert read(stage(make_job()), num=0).groups == []


def test_a_worker_that_dies_costs_no_answer(stage):
    runtime = SimulatedRuntime()
    made = stage(make_job(TWO_WORKERS), runtime)

    async def act(driver: Any, roles: Any) -> Reading:
        await made.serve(driver)
        asyncio.get_running_loop().call_later(0.5, runtime.newest("rollout worker").kill)
        return await Reading(driver, made.prompts.train, num=12).read()

    assert [group.request_id - FROM for group in made.play(act).groups] == list(range(12))


def test_a_prompt_that_workers_die_of_is_left_out_and_named(stage):
    plan = FaultPlan(seed=0, poison={"2/0"})
    reading = read(stage(make_job(TWO_WORKERS), SimulatedRuntime(wrap=with_faults(plan))), num=7)
    assert reading.lost == ["2/0"]
    assert sorted(group.prompt.prompt_id for group in reading.groups) == ["0/0", "1/0", "3/0", "4/0", "5/0", "6/0"]


def test_whoever_stops_reading_leaves_nothing_behind(stage):
    made = stage(make_job())

    async def act(driver: Any, roles: Any) -> tuple[int, int]:
        await made.serve(driver)
        reading = Reading(driver, made.prompts.train, num=12)
        async with aclosing(reading.sampler.stream(reading.requests(), quarantine=lambda *_: None)) as stream:
            first = len(await anext(stream))
        again = await Reading(driver, made.prompts.train, num=12).read()
        return first, len(again.groups)

    first, again = made.play(act)
    assert first >= 1
    assert again == 12
