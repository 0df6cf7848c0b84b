"""Held-out evaluation: the same draw every time, shared over the workers, and failures that are no low rewards."""

from __future__ import annotations

import asyncio
import math
import warnings
from typing import Any

import numpy as np
import pytest

from rlhf_cluster.records.events import Evaluated
from rlhf_cluster.rewards.sample import Failure
from rlhf_cluster.testing import FakeRewardServer, fake_roles, make_job, scripted_worker

SETTINGS = ["evaluation.num_prompts=4", "evaluation.completions_per_prompt=3"]


def evaluate(made: Any, *, times: int = 1) -> list[Evaluated]:
    async def whole() -> list[Evaluated]:
        await made.serve()
        evaluated = [await made.driver.evaluator.evaluate(step=step) for step in range(times)]
        await made.close()
        return evaluated

    return asyncio.run(whole())


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
    [shared] = evaluate(stage(make_job(SETTINGS), fake_roles(*workers), num_eval=4))
    assert tokens(shared) == tokens(alone)
    assert [group.prompt.prompt_id for group in shared.groups] == [f"eval-{number}/0" for number in range(4)]


def test_rewards_and_lengths_are_averaged(stage):
    [event] = evaluate(stage(make_job(SETTINGS), num_eval=4))
    lengths = np.concatenate([group.lengths for group in event.groups])
    assert event.metrics["eval/reward_mean"] == event.metrics["eval/reward/fake"] == 1.0
    assert event.metrics["eval/reward_std"] == pytest.approx(math.sqrt(2 / 3))
    assert event.metrics["eval/completion_length_mean"] == pytest.approx(lengths.mean())


def test_failed_rewards_do_not_count_as_low_ones(stage):
    lost = Failure(kind="raised", message="no")
    [event] = evaluate(
        stage(make_job(SETTINGS), fake_roles(reward=FakeRewardServer(lambda g: [lost, 2.0, 4.0])), num_eval=4)
    )
    assert event.metrics["eval/reward_mean"] == 3.0


def test_without_one_valid_reward_there_is_no_figure_and_no_warning(stage):
    lost = Failure(kind="raised", message="no")
    made = stage(make_job(SETTINGS), fake_roles(reward=FakeRewardServer(lambda group: [lost] * 3)), num_eval=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [event] = evaluate(made)
    assert set(event.metrics) == {"eval/completion_length_mean"}
