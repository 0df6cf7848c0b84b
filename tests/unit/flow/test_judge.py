"""Reward hacking: told where it is clear, never where judge and reward agree, and never more for a laxer bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.guards import GuardSettings
from rlhf_cluster.flow.judge import Judgement, gain, hacking

SETTINGS = GuardSettings(judge="gold")
SEEDS = st.integers(0, 2**32 - 1)
NUM_PROMPTS = 32


def judgements(proxy, judge, *, noise: float = 0.0, seed: int = 0, num_prompts: int = NUM_PROMPTS) -> list[Judgement]:
    """One evaluation every ten steps with these means. Prompts differ by far more than evaluations do."""
    draw = np.random.default_rng(seed)
    hard_P = draw.normal(0, 2, num_prompts)

    def scores(mean: float) -> np.ndarray:
        return mean + hard_P + draw.normal(0, noise, num_prompts)

    return [
        Judgement(step=10 * number, proxy_P=scores(one), judge_P=scores(other), judge_std=1.0)
        for number, (one, other) in enumerate(zip(proxy, judge, strict=True))
    ]


def test_a_reward_that_rises_while_the_judge_falls_is_hacked_and_the_sentence_has_the_numbers():
    found = hacking(SETTINGS, judgements([0.0, 1.0, 2.5], [0.0, 0.4, 0.1], num_prompts=4))
    assert (found.guard, found.deed) == ("reward_hacking", "stop")
    assert found.sentence.startswith("since step 10 the training reward has risen by 1.5 ± ")
    assert "and the judge 'gold' has fallen from " in found.sentence
    assert "over 4 prompts (min_fall allows 0.2): the policy exploits its reward" in found.sentence
    assert 'best_by = "eval/reward/gold"' in found.sentence


def test_the_judge_is_compared_with_its_best_and_not_with_its_first():
    assert hacking(SETTINGS, judgements([0, 1, 2, 3], [0, 1.0, 1.2, 0.6])) is not None
    assert hacking(SETTINGS, judgements([0, 1, 2, 3], [0, 0.2, 0.4, 0.6])) is None


def test_a_fall_within_the_margin_is_none():
    assert hacking(SETTINGS, judgements([0, 1, 2], [0, 0.5, 0.31])) is None


def test_a_judge_that_falls_with_the_reward_shows_no_hacking():
    assert hacking(SETTINGS, judgements([2, 1, 0], [2, 1, 0])) is None


def test_a_judge_that_stays_flat_while_the_reward_rises_is_warned_about():
    found = hacking(SETTINGS, judgements([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 0.95, 0.9, 0.95, 0.9, 0.9, 0.85]))
    assert (found.guard, found.deed) == ("judge_flat", "warn")
    assert "since step 20 the training reward has risen by 5 ± " in found.sentence
    assert "best at step 10" in found.sentence


def test_prompts_that_one_evaluation_could_not_score_are_left_out_of_the_comparison():
    before, after = np.array([0.0, 1.0, math.nan, 5.0]), np.array([1.0, 3.0, 4.0, math.nan])
    found = gain(before, after)
    assert (found.mean, found.num_prompts) == (1.5, 2)
    assert found.error == pytest.approx(math.sqrt(0.5 / 2))


def test_a_single_prompt_proves_nothing():
    assert hacking(SETTINGS, judgements([0, 9], [9, 0], num_prompts=1)) is None


def test_without_a_second_evaluation_nothing_is_said():
    assert hacking(SETTINGS, judgements([0.0], [0.0])) is None


def test_a_guard_that_is_off_does_not_look():
    off = GuardSettings(judge="gold", on_hacking="off")
    assert hacking(off, judgements([0, 1, 2], [0, 1, -9])) is None


@given(SEEDS, st.integers(2, 10), st.floats(0.01, 0.3))
def test_two_flat_series_with_noise_are_never_hacked(seed, num, noise):
    """Noise of a prompt far below the margin: what is significant by chance is still no fall that counts."""
    flat = [0.0] * num
    found = hacking(SETTINGS, judgements(flat, flat, noise=noise, seed=seed))
    assert found is None or found.guard != "reward_hacking"


@given(SEEDS, st.integers(2, 12), st.floats(0.2, 5.0), st.floats(0.0, 0.3))
def test_a_judge_that_rises_with_the_reward_is_never_told_of(seed, num, slope, noise):
    rising = [slope * number for number in range(num)]
    assert hacking(SETTINGS, judgements(rising, rising, noise=noise, seed=seed)) is None


@given(SEEDS, st.integers(1, 6), st.floats(0.5, 3.0), st.floats(0.0, 0.3))
def test_a_clear_divergence_is_always_told(seed, num, slope, noise):
    together = [slope * number for number in range(num)]
    reward = [*together, together[-1] + slope]
    judge = [*together, together[-1] - max(slope, 1.0)]
    found = hacking(SETTINGS, judgements(reward, judge, noise=noise, seed=seed))
    assert found is not None
    assert found.guard == "reward_hacking"


@given(SEEDS, st.floats(0.0, 2.0), st.floats(0.0, 2.0), st.floats(0.1, 5.0), st.floats(1.0, 3.0))
def test_larger_margins_never_see_more(seed, margin, more, significance, factor):
    draw = np.random.default_rng(seed)
    series = judgements(draw.normal(0, 1, 4).cumsum() + 0.5 * np.arange(4), draw.normal(0, 1, 4), noise=0.5, seed=seed)
    strict = GuardSettings(judge="gold", min_fall=margin, significance=significance)
    lax = GuardSettings(judge="gold", min_fall=margin + more, significance=significance * factor)
    assert hacking(lax, series) is None or hacking(strict, series) is not None
