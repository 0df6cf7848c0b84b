"""The learning rate as a function of the step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.learner.optimizer import learning_rate
from rlhf_cluster.learner.settings import OptimizerSettings


def rates(num_steps: int = 10, **settings) -> list[float]:
    optimizer = OptimizerSettings(lr=1.0, **settings)
    return [learning_rate(optimizer, step=step, num_steps=num_steps) for step in range(num_steps)]


def test_warm_up_rises_in_equal_parts_to_the_peak():
    assert rates(warmup_steps=4)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_linear_schedule_falls_towards_zero_after_the_last_step():
    assert rates(schedule="linear") == pytest.approx([1 - step / 10 for step in range(10)])


def test_cosine_schedule_is_half_way_down_in_the_middle():
    assert rates(schedule="cosine")[5] == pytest.approx(0.5)


@given(st.integers(0, 20), st.integers(1, 40), st.sampled_from(["constant", "linear", "cosine"]))
def test_rate_stays_within_zero_and_the_peak(warmup_steps, num_steps, schedule):
    assert all(0 <= rate <= 1 for rate in rates(num_steps, warmup_steps=warmup_steps, schedule=schedule))
