"""Who waited for whom, in shares and in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.bottleneck import Bottleneck, StepTimes
from rlhf_cluster.records.members import RoleTime


def step(step_s=10.0, gather_s=0.0, update_s=0.0, publish_s=0.0, adopt_s=0.0, **idle_shares) -> StepTimes:
    return StepTimes(
        step_s=step_s,
        gather_s=gather_s,
        update_s=update_s,
        publish_s=publish_s,
        adopt_s=adopt_s,
        idle_shares=idle_shares,
    )


def report(*steps: StepTimes, window: int = 20):
    bottleneck = Bottleneck(window=window)
    for each in steps:
        bottleneck.observe(each)
    return bottleneck.report()


def test_before_the_first_step_there_is_nothing_to_tell():
    assert report().sentence == "No step is finished yet."


def test_busy_workers_and_a_waiting_learner_name_the_workers():
    told = report(step(gather_s=6, update_s=3, publish_s=0.2, adopt_s=0.2, rollout=0.01))
    assert told.sentence == (
        "Over the last step the learner waited for rollouts 60% of the time, rollout workers were idle 1%: "
        "the rollout workers set the pace."
    )
    assert told.ideal_share == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (step(gather_s=0.2, update_s=9.5, rollout=0.4), "the learner sets the pace"),
        (step(gather_s=5, update_s=5, rollout=0.5), "more staleness would let them overlap"),
        (step(gather_s=8, update_s=2, rollout=0.9), "both wait for something else"),
        (step(gather_s=2, update_s=2, publish_s=2, adopt_s=4), "handing over weights took 60%: the weights' way"),
        (step(gather_s=2, update_s=8, reward=0.7), "the reward role was idle 70%"),
    ],
)
def test_the_sentence_names_who_holds_the_job_up(one, words):
    assert words in report(one).sentence


def test_the_same_is_told_in_numbers_the_learner_first():
    told = report(step(gather_s=5, update_s=2, publish_s=1, adopt_s=0.5, rollout=0.25, reward=0.75))
    assert told.by_role == (
        RoleTime(role="learner", busy=pytest.approx(0.3), waiting=0.5, adopting=0.05, other=pytest.approx(0.15)),
        RoleTime(role="reward", busy=0.25, waiting=0.75),
        RoleTime(role="rollout", busy=0.75, waiting=0.25),
    )
    assert report().by_role == ()


def test_synchronous_steps_are_far_from_ideal_however_well_each_half_runs():
    assert report(step(gather_s=5, update_s=5, rollout=0.5)).ideal_share == pytest.approx(0.5)


def test_only_the_last_steps_count_and_long_ones_count_more():
    told = report(step(gather_s=10), step(gather_s=0), step(step_s=30, gather_s=30), window=2)
    assert told.shares["gather"] == pytest.approx(30 / 40)


def test_a_role_that_was_not_always_measured_is_told_over_the_steps_in_which_it_was():
    assert report(step(), step(rollout=0.5)).shares["rollout idle"] == pytest.approx(0.5)


@given(st.lists(st.tuples(*[st.floats(0, 5)] * 5, st.floats(0, 1)), min_size=1, max_size=30))
def test_the_shares_of_the_driver_add_up_to_the_whole(steps):
    told = report(*(step(sum(parts) + 0.1, *parts[:4], rollout=idle) for *parts, idle in steps))
    assert sum(told.shares[name] for name in ("gather", "update", "publish", "adopt", "other")) == pytest.approx(1)
    assert 0 <= told.ideal_share <= 1


def test_a_window_without_steps_is_refused():
    with pytest.raises(ValueError, match="window = 0 must be at least 1"):
        Bottleneck(window=0)
