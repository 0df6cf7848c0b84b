"""Labels from rewards and verdicts, and the probabilities behind them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.driver.labels import by_rewards, by_verdict
from rlhf_cluster.rewards.judges.base import Verdict
from rlhf_cluster.rewards.judges.rule import preference

OTHER = {"a": "b", "b": "a", "tie": "tie"}
GAPS = st.floats(-50, 50)


@given(gap=GAPS, draw=st.floats(0, 1, exclude_max=True))
def test_without_noise_the_larger_reward_wins_whatever_is_drawn(gap, draw):
    label = by_rewards(gap, noise_scale=None, tie_band=0.0, draw=draw)
    assert label.choice == ("tie" if gap == 0 else "a" if gap > 0 else "b")


@given(gap=GAPS, scale=st.floats(0.01, 50))
def test_preference_is_the_logistic_function_and_the_two_sides_sum_to_one(gap, scale):
    assert preference(gap, scale=scale) + preference(-gap, scale=scale) == pytest.approx(1.0)
    assert preference(gap, scale=scale) == pytest.approx(1 / (1 + math.exp(min(-scale * gap, 700))), abs=1e-12)


def test_a_noisy_annotator_agrees_with_the_reward_as_often_as_its_probability_says():
    labels = [
        by_rewards(1.0, noise_scale=1.5, tie_band=0.0, draw=draw) for draw in np.random.default_rng(0).random(4000)
    ]
    share = np.mean([label.choice == "a" for label in labels])
    assert share == pytest.approx(1 / (1 + math.exp(-1.5)), abs=0.03)
    assert labels[0].p_a == pytest.approx(1 / (1 + math.exp(-1.5)))


@given(gap=st.floats(-0.5, 0.5))
def test_rewards_within_the_band_are_a_tie(gap):
    assert by_rewards(gap, noise_scale=2.0, tie_band=0.5, draw=0.3).choice == "tie"


@given(p_a=st.floats(0, 1), tie_band=st.floats(0, 0.5))
def test_a_verdict_turned_round_is_the_other_label(p_a, tie_band):
    one = by_verdict(Verdict(p_a=p_a), tie_band=tie_band)
    other = by_verdict(Verdict(p_a=1 - p_a), tie_band=tie_band)
    if abs(abs(p_a - 0.5) - tie_band) > 1e-9:
        assert other.choice == OTHER[one.choice]
    assert one.p_a + other.p_a == pytest.approx(1)
