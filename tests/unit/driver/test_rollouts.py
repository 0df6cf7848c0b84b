"""Keeping workers busy: what is dropped, refilled, sent again, counted, what ends the job, how old a batch may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhf_cluster.driver.rollouts import request_seed
from rlhf_cluster.errors import BudgetSpent, DataError, NotServing, RoleTimeout, TooManyInvalid
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.records.events import GroupDropped, PromptQuarantined, RewardFailed, WorkerChanged
from rlhf_cluster.rewards.sample import Failure
from rlhf_cluster.testing import (
    FakeLearnerRank,
    FakeRewardServer,
    fake_roles,
    make_job,
    rewards_that_differ,
    scripted_worker,
    virtual_time,
)
from rlhf_cluster.testing.faults import FaultPlan
from rlhf_cluster.testing.faulty_roles import with_faults
from rlhf_cluster.testing.fleet import Pace, SimulatedRuntime

LOST = Failure(kind="raised", message="ValueError: no such thing")


def gathered(made: Any) -> tuple[RolloutGroup, ...]:
    """The first batch."""

    async def act(driver: Any, roles: Any) -> tuple[RolloutGroup, ...]:
        await made.serve(driver)
        groups = await driver.feed.gather()
        made.tallies = [driver.feed.take_tally(), driver.feed.take_tally()]
        return groups

    return made.play(act)


def equal_for(*request_ids: int) -> Callable[[RolloutGroup], list[float]]:
    return lambda group: [1.0] * 2 if group.request_id in request_ids else rewards_that_differ(group)


def ids(groups: Any) -> list[int]:
    return [group.request_id for group in groups]


def test_a_batch_is_the_oldest_requests_in_order_with_texts_and_rewards(stage):
    groups = gathered(stage(make_job()))
    assert ids(groups) == [0, 1]
    for group in groups:
        assert len(group.texts) == 2
        assert group.rewards.tolist() == [0.0, 1.0]
        assert group.worker_id == "rollout-0"


def test_groups_without_variance_are_dropped_and_other_prompts_take_their_place(stage):
    made = stage(make_job(), fake_roles(reward=FakeRewardServer(equal_for(0, 2))))
    assert ids(gathered(made)) == [1, 3]
    dropped = made.seen(GroupDropped)
    assert [(event.request_id, event.reason) for event in dropped] == [(0, "zero_variance"), (2, "zero_variance")]
    assert {number: made.history.lives[number].reason for number in (0, 2)} == dict.fromkeys((0, 2), "zero_variance")
    assert [tally.num_dropped for tally in made.tallies] == [2, 0], "a tally is taken once"


def test_invalid_completions_leave_their_group_and_are_counted(stage):
    def judge(group: RolloutGroup) -> list[Any]:
        return [LOST, 1.0, 2.0] if group.request_id == 0 else rewards_that_differ(group)

    made = stage(make_job(["train.completions_per_prompt=3"]), fake_roles(reward=FakeRewardServer(judge)))
    groups = gathered(made)
    assert [group.num_completions for group in groups] == [2, 3]
    assert groups[0].rewards.tolist() == [1.0, 2.0]
    assert all(len(group.versions) == group.num_tokens for group in groups)
    [failed] = made.seen(RewardFailed)
    assert (failed.request_id, failed.invalid.completion, failed.invalid.source) == (0, 0, "reward:fake")
    assert (made.tallies[0].num_invalid, made.tallies[0].num_completions) == (1, 6)


def test_a_group_with_one_valid_completion_left_is_replaced(stage):
    def judge(group: RolloutGroup) -> list[Any]:
        return [LOST, 1.0] if group.request_id == 0 else rewards_that_differ(group)

    made = stage(make_job(), fake_roles(reward=FakeRewardServer(judge)))
    assert ids(gathered(made)) == [1, 2]
    assert [event.reason for event in made.seen(GroupDropped)] == ["too_few_valid"]


def test_too_many_failures_end_the_job_with_the_rewards_name_and_how_it_fails(stage):
    job = make_job(["reward_server.invalid_window=4", "reward_server.max_invalid_rate=0.25"])
    made = stage(job, fake_roles(reward=FakeRewardServer(lambda group: [LOST, LOST])))
    with pytest.raises(TooManyInvalid, match=r"reward 'fake' failed .* raised: ValueError: no such thing"):
        gathered(made)


def test_rewards_that_never_differ_end_the_job_and_say_why(stage):
    job = make_job(["limits.dropped_groups=5"])
    made = stage(job, fake_roles(reward=FakeRewardServer(lambda group: [1.0, 1.0])))
    with pytest.raises(DataError, match=r"groups in a row .* zero_variance.*limits\.dropped_groups"):
        gathered(made)
    assert 5 <= len(made.seen(GroupDropped)) <= 7


def test_only_drops_in_a_row_count_against_the_bound(stage):
    job = make_job(["limits.dropped_groups=3", "train.prompts_per_step=4"])
    judge = equal_for(*(number for number in range(40) if number % 2))
    made = stage(job, fake_roles(reward=FakeRewardServer(judge)))
    assert ids(gathered(made)) == [0, 2, 4, 6]
    assert len(made.seen(GroupDropped)) >= 3


class Around:
    """A scripted worker whose `run` a test changes."""

    def __init__(self, worker_id: str = "rollout-0") -> None:
        self.worker = scripted_worker(worker_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.worker, name)


class Raising(Around):
    async def run(self, requests):
        raise NotServing("rollout-0 serves nothing", role="rollout worker", worker_id="rollout-0", activity="run")
        yield ()


class Silent(Around):
    async def run(self, requests):
        await asyncio.Event().wait()
        yield ()


class Forgetful(Around):
    async def run(self, requests):
        return
        yield ()


class Inventive(Around):
    async def run(self, requests):
        async for groups in self.worker.run(requests):
            yield tuple(replace(group, request_id=group.request_id + 100) for group in groups)


class HalfTrue(Around):
    async def run(self, requests):
        told = [group async for groups in self.worker.run(requests) for group in groups]
        first, second = sorted(told, key=lambda group: group.request_id)
        yield first, replace(second, request_id=second.request_id + 100)


BROKEN = {
    Raising: "rollout-0 serves nothing",
    Silent: r"rollout worker rollout-0 did not answer within 0\.3 s while generating 2 groups",
    Forgetful: "rollout-0 ended its answer with 2 groups missing",
    Inventive: "rollout-0 gave an answer that cannot be true: request 100 was not asked of it",
    HalfTrue: "rollout-0 gave an answer that cannot be true: request 101 was not asked of it",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_worker_that_may_not_be_replaced_ends_the_job_and_is_named(stage, broken):
    job = make_job(["limits.generate_s=0.3", "recovery.max_restarts=0"])
    with pytest.raises(BudgetSpent, match=BROKEN[broken]):
        gathered(stage(job, fake_roles(broken())))


@pytest.mark.parametrize("broken", BROKEN)
def test_what_a_broken_worker_held_goes_to_its_replacement_and_keeps_its_place(stage, broken):
    job = make_job(["limits.generate_s=0.3"])
    made = stage(job, fake_roles(broken(), replace=lambda spec: scripted_worker(spec.worker_id)))
    groups = gathered(made)
    assert ids(groups) == [0, 1]
    assert {group.worker_id for group in groups} == {"rollout-1"}
    [lost] = [event for event in made.seen(WorkerChanged) if event.state == "lost"]
    assert lost.worker_id == "rollout-0"
    assert [made.history.lives[number].num_lost for number in (0, 1)] == [1, 1]


def test_a_reward_server_that_never_answers_is_named(stage):
    job = make_job(["limits.score_s=0.05", "recovery.max_restarts=0"])
    with pytest.raises(BudgetSpent, match=r"reward server reward-0 .* scoring"):
        gathered(stage(job, fake_roles(reward=FakeRewardServer(delay_s=60.0))))


def test_an_algorithm_that_needs_the_reference_gets_its_column_and_invalid_ones_are_not_scored(stage):
    seen: list[int] = []

    class Scorer(FakeRewardServer):
        async def logprobs(self, groups):
            seen.extend(group.num_completions for group in groups)
            return tuple(replace(group, reference_logprobs=np.zeros(group.num_tokens, np.float32)) for group in groups)

    job = make_job(["algorithm.kl_coef=0.1", "train.completions_per_prompt=3"])
    reward = FakeRewardServer(lambda group: [LOST, 1.0, 2.0])
    made = stage(job, fake_roles(reward=reward, reference_scorers={"reference-0": Scorer()}))
    assert all(len(group.reference_logprobs) == group.num_tokens for group in gathered(made))
    assert set(seen) == {2}


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_no_token_is_older_than_the_bound_whatever_the_workers_speeds(stage, max_staleness):
    job = make_job(
        [
            f"train.max_staleness={max_staleness}",
            "train.num_steps=8",
            "train.prompts_per_step=3",
            "rollout.num_workers=3",
        ]
    )
    workers = [
        scripted_worker("rollout-0", token_s=0.0002, spread=1.0),
        scripted_worker("rollout-1", token_s=0.002, spread=1.0),
        scripted_worker("rollout-2"),
    ]
    rank = FakeLearnerRank()
    made = stage(job, fake_roles(*workers, rank=rank))
    made.drive()
    ages = {batch.staleness() for batch in rank.batches}
    assert max(ages) <= max_staleness
    assert len(rank.batches) == 8
    assert not made.history.outstanding, "nothing is generated that no step would take"
    assert audit(made.history, max_staleness=max_staleness).ok


def test_batches_come_oldest_first_even_when_the_young_finish_before(stage):
    job = make_job(["train.max_staleness=1", "train.num_steps=4", "rollout.num_workers=2"])
    workers = scripted_worker("rollout-0", token_s=0.001, spread=1.5), scripted_worker("rollout-1")
    rank = FakeLearnerRank()
    stage(job, fake_roles(*workers, rank=rank)).drive()
    assert [group.request_id for batch in rank.batches for group in batch.groups] == list(range(8))


def test_a_seed_depends_on_the_job_and_the_request_alone():
    assert request_seed(7, 3) == request_seed(7, 3)
    assert len({request_seed(seed, request_id) for seed in range(5) for request_id in range(50)}) == 250
    assert all(0 <= request_seed(0, request_id) < 2**63 for request_id in range(50))


def first_batch_again(stage: Any, job: Any, *, after: int) -> tuple[Any, Any]:
    """A driver that gathers one batch and ends before it is accepted, then another that gathers it."""

    async def until_complete(driver: Any, roles: Any) -> Any:
        await made.serve(driver)
        driver.feed.feed()
        while driver.feed.buffer.num_complete < after:
            await driver.fleet.news()
        return driver.feed.buffer.snapshot()

    made = stage(job, fake_roles())
    made.play(until_complete)
    again = stage(job, fake_roles(scripted_worker(token_s=0.001)))
    return made, (again, gathered(again))


def test_a_synchronous_job_generates_an_interrupted_step_anew_as_a_whole(stage):
    _, (again, groups) = first_batch_again(stage, make_job(), after=1)
    assert ids(groups) == [0, 1]
    assert [opened.restarted for opened in again.history.drivers] == [(), (0, 1)]
    assert again.tallies[0].num_tokens == sum(group.num_tokens for group in groups)


def test_an_asynchronous_job_keeps_every_group_that_was_complete(stage):
    _, (again, groups) = first_batch_again(stage, make_job(["train.max_staleness=1"]), after=4)
    assert ids(groups) == [0, 1]
    assert again.tallies[0].num_tokens == 0, "nothing was generated again"
    assert all(group.rewards is not None for group in groups)


def test_a_paused_job_sends_nothing_out_and_finishes_what_is_under_way(stage):
    made = stage(make_job(["train.max_staleness=1"]), SimulatedRuntime())

    async def act(driver: Any, roles: Any) -> list[int]:
        await made.serve(driver)
        driver.feed.feed()
        driver.feed.paused = True
        seen = []
        for _ in range(2):
            await asyncio.sleep(100.0)
            driver.feed.feed()
            seen.append(driver.feed.buffer.snapshot())
        return seen

    seen = made.play(act)
    assert seen[0] == seen[1]
    assert (seen[0].num_complete, seen[0].num_in_flight) == (4, 0)


def test_a_prompt_that_kills_every_worker_is_quarantined_and_left_out_in_later_epochs_too(stage):
    job = make_job(["train.num_steps=6", "recovery.max_restarts=30", "rollout.num_workers=2"])
    first = stage(job).prompts.train[1].prompt_id
    row = first.partition("/")[0]
    plan = FaultPlan(seed=0, poison={f"{row}/{epoch}" for epoch in range(9)})
    made = stage(job, SimulatedRuntime(wrap=with_faults(plan)))
    made.drive()
    [event] = made.seen(PromptQuarantined)
    assert event.prompt_id == first
    assert len(event.evidence) == job.recovery.max_deaths + 1
    assert all("died of poison" in line for line in event.evidence)
    assert plan.fired["poison"] == len(event.evidence), "no worker dies of it later"
    assert [life.reason for life in made.history.lives.values() if life.reason] == ["quarantined"] * 2
    assert audit(made.history, max_staleness=0).ok


def test_a_quarantined_prompt_stays_out_of_a_job_that_is_resumed_and_whose_ledger_was_compacted(stage):
    options = ["recovery.max_restarts=30", "rollout.num_workers=2", "checkpoint.every_steps=2", "checkpoint.keep=1"]
    row = stage(make_job(options)).prompts.train[1].prompt_id.partition("/")[0]
    plan = FaultPlan(seed=0, poison={f"{row}/{epoch}" for epoch in range(20)})
    made = stage(make_job([*options, "train.num_steps=6"]), SimulatedRuntime(wrap=with_faults(plan)))
    made.drive()
    num_deaths = plan.fired["poison"]
    resumed = stage(make_job([*options, "train.num_steps=12"]), SimulatedRuntime(wrap=with_faults(plan)))
    assert resumed.history.settled.quarantined, "the entry that told it is folded"
    resumed.drive()
    assert plan.fired["poison"] == num_deaths > 0
    assert resumed.history.step == 12
    assert audit(resumed.history, max_staleness=0).ok


def test_where_no_worker_serves_for_too_long_the_job_ends_and_says_why(stage):
    made = stage(make_job(["limits.start_s=50", "recovery.max_restarts=999", "recovery.backoff_s=0.0"]))
    runtime = SimulatedRuntime()
    made = stage(made.job, runtime)

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        runtime.pace = Pace(worker_start_s=1e9)
        runtime.newest("rollout worker").kill()
        while True:
            await driver.feed.gather()

    with pytest.raises(RoleTimeout, match=r"no rollout worker has served for 100 s: rollout-\d+ is .*was lost"):
        made.play(act)


def test_what_a_batch_waits_for_is_told_in_words(stage):
    made = stage(make_job(["rollout.max_in_flight=2"]), SimulatedRuntime(Pace(score_s=5.0)))

    async def act(driver: Any, roles: Any) -> list[str]:
        told = [driver.feed.waiting_for()]
        await made.serve(driver)
        driver.feed.feed()
        for seconds in (0.5, 1.0, 10.0):
            await asyncio.sleep(seconds)
            told.append(driver.feed.waiting_for())
        return told

    assert made.play(act) == [
        "nothing is under way",
        "prompt 0 on rollout-0",
        "prompt 0 to be scored",
        "nothing is under way",
    ]


def test_closing_aborts_what_is_under_way(stage):
    worker = scripted_worker(token_s=0.01, eos_probability=0.0)
    made = stage(make_job(), fake_roles(worker))

    async def until(condition: Callable[[Any], bool]) -> None:
        for _ in range(5000):
            if condition(await worker.status()):
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"never came true: {await worker.status()}")

    async def feed_then_close(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        driver.feed.feed()
        await until(lambda status: status.num_in_flight > 0)
        await driver.fleet.aclose()
        await until(lambda status: status.num_in_flight == 0)

    made.play(feed_then_close)


def test_groups_that_arrive_while_the_driver_closes_leave_no_task_behind(stage):
    class LetsGoSlowly(FakeRewardServer):
        async def score(self, groups):
            try:
                await asyncio.sleep(1000.0)
            finally:
                await asyncio.sleep(1.0)
            return ()

    def wrap(role: Any) -> Any:
        return LetsGoSlowly() if role.role == "reward server" else role

    seconds_of = {0: 1.0, 1: 2.5}
    made = stage(make_job(), SimulatedRuntime(Pace(seconds_of=lambda r: seconds_of[r.request_id]), wrap=wrap))

    async def whole() -> None:
        async with made.open() as (driver, _):
            await made.serve(driver)
            driver.feed.feed()
            await asyncio.sleep(2.0)
        await made.runtime.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(whole(), clock=made.clock)
