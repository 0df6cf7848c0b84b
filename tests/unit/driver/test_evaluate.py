"""Held-out evaluation: the same draw every time, shared over the workers, and failures that are no low rewards."""

from __future__ import annotations

import asyncio
import math
import warnings
from typing import Any

import numpy as np
import pytest

from rlhf_cluster.errors import RoleDied
from rlhf_cluster.records.events import Evaluated
from rlhf_cluster.rewards.sample import Failure
from rlhf_cluster.testing import FakeRewardServer, fake_roles, make_job, scripted_worker
from rlhf_cluster.testing.faults import FaultPlan
from rlhf_cluster.testing.faulty_roles import with_faults
from rlhf_cluster.testing.fleet import SimulatedRuntime

SETTINGS = ["evaluation.num_prompts=4", "evaluation.completions_per_prompt=3"]


def evaluate(made: Any, *, times: int = 1) -> list[Evaluated]:
    async def act(driver: Any, roles: Any) -> list[Evaluated]:
        await made.serve(driver)
        return [await driver.evaluator.evaluate(step=step, feed=driver.feed) for step in range(times)]

    return made.play(act)


def tokens(event: Evaluated) -> list[list[int]]:
    return [group.token_ids.tolist() for group in event.groups]


def test_two_evaluations_of_one_policy_are_the_same(stage):
    first, second = evaluate(stage(make_job(SETTINGS), num_eval=6), times=2)
    assert tokens(first) == tokens(second)
    assert first.metrics == second.metrics
    assert len(first.groups) == 4
    assert {group.num_completions for group in first.groups} == {3}


@pytest.mark.parametrize("num_workers", [2, 5])
def test_the_number_of_workers_changes_neither_draws_nor_order(stage, num_workers):
    [alone] = evaluate(stage(make_job(SETTINGS), num_eval=4))
    workers = [scripted_worker(f"rollout-{number}") for number in range(num_workers)]
    job = make_job([*SETTINGS, f"rollout.num_workers={num_workers}"])
    [shared] = evaluate(stage(job, fake_roles(*workers), num_eval=4))
    assert tokens(shared) == tokens(alone)
    assert [group.prompt.prompt_id for group in shared.groups] == [f"eval-{number}/0" for number in range(4)]
    assert len({group.worker_id for group in shared.groups}) == min(num_workers, 4)


def test_rewards_and_lengths_are_averaged(stage):
    [event] = evaluate(stage(make_job(SETTINGS), num_eval=4))
    lengths = np.concatenate([group.lengths for group in event.groups])
    assert event.metrics["eval/reward_mean"] == event.metrics["eval/reward/fake"] == 1.0
    assert event.metrics["eval/reward_std"] == pytest.approx(math.sqrt(2 / 3))
    assert event.metrics["eval/completion_length_mean"] == pytest.approx(lengths.mean())


def test_failed_rewards_do_not_count_as_low_ones(stage):
    lost = Failure(kind="raised", message="no")
    reward = FakeRewardServer(lambda group: [lost, 2.0, 4.0])
    [event] = evaluate(stage(make_job(SETTINGS), fake_roles(reward=reward), num_eval=4))
    assert event.metrics["eval/reward_mean"] == 3.0


def test_without_one_valid_reward_there_is_no_figure_and_no_warning(stage):
    lost = Failure(kind="raised", message="no")
    made = stage(make_job(SETTINGS), fake_roles(reward=FakeRewardServer(lambda group: [lost] * 3)), num_eval=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [event] = evaluate(made)
    assert set(event.metrics) == {"eval/completion_length_mean"}


def test_a_worker_that_dies_during_an_evaluation_costs_no_answer(stage):
    job = make_job([*SETTINGS, "rollout.num_workers=2"])
    runtime = SimulatedRuntime()
    made = stage(job, runtime, num_eval=4)

    async def act(driver: Any, roles: Any) -> Evaluated:
        await made.serve(driver)
        asyncio.get_running_loop().call_later(0.5, runtime.newest("rollout worker").kill)
        return await driver.evaluator.evaluate(step=0, feed=driver.feed)

    event = made.play(act)
    assert [group.prompt.prompt_id for group in event.groups] == [f"eval-{number}/0" for number in range(4)]
    assert {group.worker_id for group in event.groups} == {"rollout-0"}


def test_an_evaluation_prompt_that_workers_die_of_ends_the_job_and_is_named(stage):
    plan = FaultPlan(seed=0, poison={"eval-2/0"})
    job = make_job([*SETTINGS, "rollout.num_workers=2", "recovery.max_restarts=30"])
    made = stage(job, SimulatedRuntime(wrap=with_faults(plan)), num_eval=4)

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        await driver.evaluator.evaluate(step=0, feed=driver.feed)

    with pytest.raises(RoleDied, match="the evaluation prompt eval-2/0 kills workers"):
        made.play(act)
    assert plan.fired["poison"] == job.recovery.max_deaths + 1


def test_an_evaluation_leaves_no_trace_in_the_ledger_of_prompts(stage):
    made = stage(make_job(SETTINGS), num_eval=4)
    evaluate(made, times=2)
    assert made.history.lives == {}


def test_an_evaluation_prompt_that_reward_servers_die_of_ends_the_job_and_is_named(stage):
    plan = FaultPlan(seed=0, kinds=("reward_die",), rate=1.0)
    job = make_job([*SETTINGS, "recovery.max_restarts=50"])
    made = stage(job, SimulatedRuntime(wrap=with_faults(plan)), num_eval=4)
    with pytest.raises(RoleDied, match=r"the evaluation prompt eval-0/0 kills reward servers"):
        evaluate(made)


def test_an_evaluation_is_of_the_newest_version_also_where_a_worker_adopts_late(stage):
    def slow_to_adopt(role: Any) -> Any:
        if role.worker_id == "rollout-1":
            role.adopt_s = 40.0
        return role

    job = make_job([*SETTINGS, "rollout.num_workers=2", "train.max_staleness=1"])
    made = stage(job, SimulatedRuntime(wrap=slow_to_adopt), num_eval=4)

    async def act(driver: Any, roles: Any) -> Evaluated:
        await made.serve(driver)
        await driver.train_step()
        assert driver.fleet.version_of("rollout-1") == 0, "nobody waited for it"
        return await driver.evaluator.evaluate(step=1, feed=driver.feed)

    event = made.play(act)
    assert {version for group in event.groups for version in group.versions.tolist()} == {1}
    assert {group.worker_id for group in event.groups} == {"rollout-0", "rollout-1"}
