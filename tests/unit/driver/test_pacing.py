"""Who waits for whom, in words, and how the policy's decision reaches the pool. Virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlhf_cluster.driver.pacing import Pacing
from rlhf_cluster.records.events import Notice
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.fleet import Pace, SimulatedRuntime

AUTOSCALE = ["autoscale.min_workers=1", "autoscale.max_workers=4"]


def figures(**changes: float) -> dict[str, float]:
    """Of a step of 10 s in which the learner waited for 9."""
    return {
        "driver/step_s": 10.0,
        "driver/gather_s": 9.0,
        "driver/update_s": 0.8,
        "driver/batch_tokens": 1000.0,
        "driver/longest_group_s": 1.0,
        "driver/groups_queued": 0.0,
        "weights/hand_over_s": 0.2,
        "weights/adopt_s": 0.1,
        "rollout/idle_share": 0.0,
        "rollout/tokens_per_s": 100.0,
    } | {name.replace("__", "/"): value for name, value in changes.items()}


def observed(made: Any, *steps: dict[str, float]) -> tuple[str, list[int]]:
    """The sentence, and the size of the pool after every step."""

    async def act(driver: Any, roles: Any) -> tuple[str, list[int]]:
        pacing = Pacing(made.job, driver.rollouts.fleet, emit=made.events.append, clock=made.clock)
        await made.serve(driver)
        sizes = []
        for step, metrics in enumerate(steps):
            pacing.observe(metrics, step=step)
            sizes.append(roles.rollout.size)
            await asyncio.sleep(10.0)
            await made.serve(driver)
        return pacing.sentence, sizes

    return made.play(act)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({}, "rollout"), ({"driver__gather_s": 0.5, "driver__update_s": 9.3, "rollout__idle_share": 0.9}, "learner")],
)
def test_the_bottleneck_is_told_in_words(stage, changes, says):
    sentence, _ = observed(stage(make_job(), SimulatedRuntime()), *[figures(**changes)] * 5)
    assert says in sentence


def test_an_adoption_that_outlasts_the_hand_over_counts_for_no_more_than_that(stage):
    sentence, _ = observed(stage(make_job(), SimulatedRuntime()), figures(weights__adopt_s=99.0))
    assert sentence


def test_the_policy_says_why_it_stays_too(stage):
    sentence, sizes = observed(stage(make_job(AUTOSCALE), SimulatedRuntime()), figures())
    assert sizes == [1]
    assert " Autoscale: stay at 1: " in sentence


def test_without_autoscale_the_number_of_workers_stays(stage):
    made = stage(make_job(), SimulatedRuntime())
    assert set(observed(made, *[figures()] * 12)[1]) == {1}
    assert made.seen(Notice) == []


def test_a_learner_that_waits_gets_more_workers_within_the_bounds_and_it_is_told(stage):
    made = stage(make_job([*AUTOSCALE, "train.max_staleness=1"]), SimulatedRuntime())
    sizes = observed(made, *[figures()] * 30)[1]
    assert sizes[-1] > 1
    assert max(sizes) <= 4
    notices = made.seen(Notice)
    assert len(notices) == len(set(sizes)) - 1
    assert all(notice.level == "info" and notice.text.startswith("rollout workers: ") for notice in notices)


def test_a_job_that_scales_itself_comes_to_an_end_and_observes_its_own_steps(stage):
    job = make_job(
        [
            *AUTOSCALE,
            "train.max_staleness=1",
            "train.num_steps=25",
            "train.prompts_per_step=8",
            "rollout.max_in_flight=4",
        ]
    )
    made = stage(job, SimulatedRuntime(Pace(seconds_of=lambda request: 10.0, update_s=0.5)))
    made.drive()
    opened = [role.worker_id for role in made.runtime.opened if role.role == "rollout worker"]
    assert 1 < len(opened) <= 4
