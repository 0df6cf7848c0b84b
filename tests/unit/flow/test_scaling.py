"""How many rollout workers the policy asks for, when, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.scaling import ScalingPolicy, StepRates

STEP = StepRates(
    step_s=10.0,
    learner_waited_s=4.0,
    workers_idle_s=0.0,
    worker_tokens_per_s=300.0,
    learner_tokens_per_s=1200.0,
    longest_s=1.0,
    num_workers=3,
)
IDLE = replace(STEP, learner_waited_s=0.0, workers_idle_s=4.0, learner_tokens_per_s=540.0, num_workers=8)


def policy(**changes) -> ScalingPolicy:
    settings = {"min_workers": 1, "max_workers": 16, "max_staleness": 2, "up_after": 2, "down_after": 3, "window": 5}
    return ScalingPolicy(**{**settings, "headroom": 0.0, **changes})


def decisions(scaling: ScalingPolicy, *steps: StepRates) -> list[int]:
    return [scaling.decide(step).num_workers for step in steps]


def test_it_grows_to_what_keeps_the_learner_busy_once_steps_agree():
    scaling = policy()
    first, second = scaling.decide(STEP), scaling.decide(STEP)
    assert (first.num_workers, second.num_workers) == (3, 4)
    assert first.reason == (
        "stay at 3: the learner can take 1,200 tokens/s and one worker makes 300, which with 0% headroom asks for 4; "
        "seen 1 of 2 times in a row"
    )
    assert second.reason.startswith("grow from 3 to 4: the learner can take 1,200 tokens/s")


def test_headroom_asks_for_more_and_the_limit_is_told():
    decision = policy(headroom=0.5, max_workers=4, up_after=1).decide(STEP)
    assert decision.num_workers == 4
    assert decision.reason.endswith("with 50% headroom asks for 6; max_workers = 4")


def test_it_grows_by_twice_and_shrinks_by_a_quarter_at_most():
    assert policy(up_after=1).decide(replace(STEP, num_workers=1)).num_workers == 2
    assert decisions(policy(), IDLE, IDLE, IDLE) == [8, 8, 6]
    assert policy(down_after=1).decide(replace(IDLE, num_workers=3)).num_workers == 2


def test_a_step_that_disagrees_starts_the_count_anew():
    fast = replace(STEP, learner_tokens_per_s=900.0)
    assert decisions(policy(window=1), STEP, fast, STEP, STEP) == [3, 3, 3, 4]


def test_nothing_changes_while_a_change_is_under_way_nor_right_after():
    scaling = policy()
    pending = replace(STEP, num_pending=1)
    assert decisions(scaling, STEP, pending, STEP, STEP) == [3, 3, 3, 4]
    assert scaling.decide(pending).reason == "stay at 3: 1 worker is still coming or going"


def test_steps_of_a_pool_of_another_size_do_not_count():
    assert decisions(policy(), replace(STEP, num_workers=2), STEP, STEP) == [2, 3, 4]


def test_it_does_not_grow_for_a_learner_that_hardly_waits():
    decision = policy(up_after=1).decide(replace(STEP, learner_waited_s=0.1, num_queued=7))
    assert decision.num_workers == 3
    assert decision.reason.endswith("the learner waits for only 1.0% of a step, with 7 groups queued for it")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learner_waited_s": 1.0}, "but the learner already waits for 10.0% of a step"),
        ({"workers_idle_s": 0.1}, "but the workers are idle for only 1.0% of a step"),
    ],
)
def test_it_does_not_shrink_against_what_was_seen(changes, words):
    decision = policy(down_after=1).decide(replace(IDLE, **changes))
    assert decision.num_workers == 8
    assert words in decision.reason


def test_enough_is_told_too():
    decision = policy().decide(replace(STEP, num_workers=4))
    assert decision.reason == (
        "stay at 4: the learner can take 1,200 tokens/s and one worker makes 300, which with 0% headroom asks for 4"
    )


def test_rates_that_were_not_measured_change_nothing():
    decision = policy(up_after=1).decide(replace(STEP, worker_tokens_per_s=0.0))
    assert decision.reason == "stay at 3: this step's rates were not measured"


def test_a_pool_outside_the_limits_is_brought_back_at_once():
    assert policy(min_workers=5).decide(STEP).reason == "grow from 3 to 5: min_workers = 5"
    assert policy(max_workers=2).decide(STEP).reason == "shrink from 3 to 2: max_workers = 2"


def test_in_synchronous_mode_workers_are_added_while_one_more_is_worth_it():
    # 3 workers spread 9 s over themselves above a floor of 1 s, beside 6 s of learning: 7 + 9 / W seconds a step.
    decision = policy(max_staleness=0, up_after=1).decide(STEP)
    assert decision.num_workers == 6
    assert decision.reason == (
        "grow from 3 to 6: in synchronous mode the learner waits 4 s of a 10 s step, of which the longest completion "
        "takes 1 s, and worker 8 would shorten the step by 1.9%, which asks for 7"
    )


def test_in_synchronous_mode_the_longest_completion_is_a_floor_that_no_worker_lowers():
    lonely = replace(STEP, longest_s=4.0)
    assert decisions(policy(max_staleness=0, down_after=1), lonely) == [2]


@given(
    learner=st.floats(1, 1e6), worker=st.floats(1, 1e6), now=st.integers(1, 16), waited=st.floats(0, 10),
    longest=st.floats(0, 20), max_staleness=st.integers(0, 1),
)  # fmt: skip
def test_the_pool_settles_within_its_limits(learner, worker, now, waited, longest, max_staleness):
    scaling = policy(max_workers=16, max_staleness=max_staleness, up_after=1, down_after=1)
    sizes = [now]
    for _ in range(30):
        step = replace(STEP, learner_tokens_per_s=learner, worker_tokens_per_s=worker, num_workers=sizes[-1])
        # What a synchronous gather shares among the workers, and what the learner waits for.
        shared_s = waited * now
        step = replace(step, longest_s=longest, learner_waited_s=longest + shared_s / sizes[-1], step_s=40.0)
        sizes.append(scaling.decide(step).num_workers)
    assert all(1 <= size <= 16 for size in sizes)
    assert sizes[-1] == sizes[-5]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"min_workers": 0}, "must be 1 to max_workers"),
        ({"max_workers": 0}, "must be 1 to max_workers"),
        ({"window": 0}, "must be at least 1"),
        ({"headroom": -1.0}, "headroom = -1 at least 0"),
    ],
)
def test_settings_without_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        policy(**changes)


def test_limits_can_change_and_what_was_measured_still_counts():
    scaling = policy(max_workers=3)
    assert decisions(scaling, STEP, STEP) == [3, 3]
    scaling.limit(min_workers=1, max_workers=8)
    assert decisions(scaling, STEP, STEP) == [3, 4]
    with pytest.raises(ValueError, match="min_workers = 9 must be 1 to max_workers = 8"):
        scaling.limit(min_workers=9, max_workers=8)


def test_what_the_steps_ask_for_is_told_before_limits_and_patience():
    decision = policy(max_workers=3, headroom=0.5).decide(STEP)
    assert (decision.num_workers, decision.wanted) == (3, 6)
    assert decision.why.endswith("which with 50% headroom asks for 6")


def test_what_was_seen_to_be_of_no_use_is_not_recommended():
    decision = policy().decide(replace(STEP, learner_waited_s=0.1))
    assert decision.wanted == 3
    assert "but the learner waits for only 1.0%" in decision.why


def test_steps_that_say_nothing_recommend_nothing():
    assert policy().decide(replace(STEP, num_pending=2)).wanted == 0
    assert policy().decide(replace(STEP, worker_tokens_per_s=0.0)).wanted == 0


def test_advice_that_nobody_follows_stays_the_same():
    scaling = policy(up_after=1)
    assert {scaling.decide(STEP).wanted for _ in range(20)} == {4}
