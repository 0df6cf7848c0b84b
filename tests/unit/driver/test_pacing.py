"""Who waits for whom, in words, and how the policy's decision reaches the pool. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from rlhf_cluster.driver.pacing import Pacing
from rlhf_cluster.driver.sizes import Bounds, Desired, read_desired
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


async def pace(made: Any, driver: Any, steps: Iterable[dict[str, float]]) -> list[int]:
    """The size of the pool after every step."""
    sizes = []
    for step, metrics in enumerate(steps):
        driver.pacing.observe(metrics, step=step)
        sizes.append(driver.fleet.pool.size)
        await asyncio.sleep(10.0)
        await made.serve(driver)
    return sizes


def observed(made: Any, *steps: dict[str, float]) -> tuple[Pacing, list[int]]:
    """And the size of the pool after every step."""

    async def act(driver: Any, roles: Any) -> tuple[Pacing, list[int]]:
        await made.serve(driver)
        return driver.pacing, await pace(made, driver, steps)

    return made.play(act)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({}, "rollout"), ({"driver__gather_s": 0.5, "driver__update_s": 9.3, "rollout__idle_share": 0.9}, "learner")],
)
def test_the_bottleneck_is_told_in_words(stage, changes, says):
    pacing, _ = observed(stage(make_job(), SimulatedRuntime()), *[figures(**changes)] * 5)
    assert says in pacing.sentence


def test_who_waited_is_told_in_numbers_too(stage):
    pacing, _ = observed(stage(make_job(), SimulatedRuntime()), *[figures(rollout__idle_share=0.25)] * 5)
    learner, rollout = pacing.time_split
    assert (learner.role, learner.waiting, rollout.role) == ("learner", pytest.approx(0.9), "rollout")
    assert (rollout.busy, rollout.waiting) == pytest.approx((0.75, 0.25))


def test_an_adoption_that_outlasts_the_hand_over_counts_for_no_more_than_that(stage):
    pacing, _ = observed(stage(make_job(), SimulatedRuntime()), figures(weights__adopt_s=99.0))
    assert pacing.sentence


def test_the_policy_says_why_it_stays_too(stage):
    pacing, sizes = observed(stage(make_job(AUTOSCALE), SimulatedRuntime()), figures())
    assert sizes == [1]
    assert pacing.reason.startswith("stay at 1: ")


def test_a_policy_that_leaves_the_number_as_it_is_says_why_once(stage):
    made = stage(make_job([*AUTOSCALE, "train.max_staleness=1"]), SimulatedRuntime())
    busy = figures(driver__gather_s=0.05, driver__update_s=9.7, rollout__tokens_per_s=200.0)
    assert set(observed(made, *[busy] * 30)[1]) == {1}
    [notice] = made.seen(Notice)
    assert notice.text.startswith("rollout workers: stay at 1: the learner can take ")


def test_without_autoscale_the_number_of_workers_stays(stage):
    made = stage(make_job(), SimulatedRuntime())
    assert set(observed(made, *[figures()] * 12)[1]) == {1}
    assert made.seen(Notice) == []


def test_a_learner_that_waits_gets_more_workers_within_the_bounds_and_it_is_told(stage):
    made = stage(make_job([*AUTOSCALE, "train.max_staleness=1"]), SimulatedRuntime())
    sizes = observed(made, *[figures()] * 30)[1]
    assert sizes[-1] > 1
    assert max(sizes) <= 4
    notices = [notice for notice in made.seen(Notice) if "stay" not in notice.text]
    assert len(notices) == len(set(sizes)) - 1
    assert all(notice.level == "info" and notice.text.startswith("rollout workers: ") for notice in notices)


def test_without_autoscale_a_number_is_recommended_all_the_same(stage):
    pacing, sizes = observed(stage(make_job(["train.max_staleness=1"]), SimulatedRuntime()), *[figures()] * 12)
    # 1000 tokens in the second that the learner needs for them, and 100 of a worker, with a tenth of headroom.
    assert (sizes[-1], pacing.recommended) == (1, 11)
    assert pacing.reason.endswith("which with 10% headroom asks for 11")


def test_before_the_first_step_nothing_is_recommended(stage):
    pacing, _ = observed(stage(make_job(), SimulatedRuntime()))
    assert (pacing.recommended, pacing.reason, pacing.time_split) == (0, "", ())


def test_the_policy_is_turned_on_bounded_anew_and_off_while_the_job_runs(stage):
    made = stage(make_job(["train.max_staleness=1"]), SimulatedRuntime())

    async def act(driver: Any, roles: Any) -> tuple[list[list[int]], list[str]]:
        await made.serve(driver)
        sizes, pacing = driver.pacing.sizes, driver.pacing
        seen, said = [await pace(made, driver, [figures()] * 5)], []
        for bounds in (Bounds(min_workers=1, max_workers=3), Bounds(min_workers=5, max_workers=6)):
            sizes.by_policy("rollout", bounds)
            said.append(pacing.reason)
            seen.append(await pace(made, driver, [figures()] * 15))
            said.append(pacing.reason)
        sizes.by_hand("rollout", 2)
        seen.append(await pace(made, driver, [figures()] * 15))
        return seen, [*said, pacing.reason]

    seen, said = made.play(act)
    assert [set(seen[0]), seen[1][-1], set(seen[2]), set(seen[3])] == [{1}, 3, {5, 6}, {2}]
    assert [said[0], said[2]] == ["", ""], "a sentence of other bounds is no sentence of these"
    assert said[1].endswith("max_workers = 3")
    assert said[3].endswith("max_workers = 6")
    assert "max_workers" not in said[4]


def test_what_the_policy_chose_is_what_the_next_driver_begins_with(stage):
    made = stage(make_job([*AUTOSCALE, "train.max_staleness=1"]), SimulatedRuntime())
    size = observed(made, *[figures()] * 30)[1][-1]
    assert read_desired(made.job_dir)["rollout"] == Desired(
        role="rollout", num_workers=size, mode="auto", min_workers=1, max_workers=4
    )
    again = stage(made.job, SimulatedRuntime())
    assert observed(again, figures())[1] == [size]


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
