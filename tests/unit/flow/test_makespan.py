"""The yardstick of the benchmarks: against cases one can count, and against the gains that are known."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_cluster.flow.makespan import makespan_s

SMALL = {"num_workers": 2, "slots": 1, "prompts_per_step": 2, "train_s": 3.0, "num_steps": 2}


def test_synchronous_steps_wait_for_their_longest_group_and_then_for_the_learner():
    assert makespan_s([1, 4, 2, 2], **SMALL, max_staleness=0) == 4 + 3 + 2 + 3


def test_with_staleness_the_next_batch_is_ready_when_the_learner_is():
    assert makespan_s([1, 4, 2, 2], **SMALL, max_staleness=1) == 5 + 3 + 3 - 1


def test_one_worker_with_two_slots_is_as_fast_as_two_with_one():
    alike = {**SMALL, "num_workers": 1, "slots": 2}
    assert makespan_s([1, 4, 2, 2], **alike, max_staleness=0) == 12


def test_strict_order_makes_the_learner_wait_for_the_oldest_group():
    # One step a prompt: the second group is done at 1 s and waits for the first.
    settings = {**SMALL, "prompts_per_step": 1, "train_s": 1.0}
    assert makespan_s([5, 1], **settings, max_staleness=1) == 7


def speed_up(max_staleness: int, *, sigma: float, prompts_per_step: int = 160, num_steps: int = 40) -> float:
    """Over synchronous steps, with as much work to generate as to train and lengths cut at 8 times their mean."""
    draw = np.random.default_rng(0)
    durations_s = np.exp(draw.normal(-(sigma**2) / 2, sigma, prompts_per_step * num_steps)).clip(max=8)
    settings = {
        "num_workers": 8,
        "slots": 4,
        "prompts_per_step": prompts_per_step,
        "train_s": float(durations_s.sum()) / (32 * num_steps),
        "num_steps": num_steps,
    }
    lasts_s = [makespan_s(durations_s.tolist(), **settings, max_staleness=bound) for bound in (0, max_staleness)]
    return lasts_s[0] / lasts_s[1]


def test_staleness_two_gains_what_is_known_for_long_tailed_lengths():
    assert 2.3 < speed_up(2, sigma=1.0) < 2.8
    assert 2.0 < speed_up(2, sigma=0.5) < 2.5
    assert speed_up(1, sigma=1.0) < speed_up(2, sigma=1.0) < speed_up(4, sigma=1.0)


@pytest.mark.parametrize(
    ("changes", "words"), [({"num_steps": 3}, "need 6 durations, there are 4"), ({"slots": 0}, "slots = 0")]
)
def test_a_schedule_that_could_not_run_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        makespan_s([1, 4, 2, 2], **{**SMALL, **changes}, max_staleness=0)
