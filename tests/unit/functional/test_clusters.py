"""Intervals over prompts: numbers by hand, laws, and that they hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.functional.clusters import (
    clustered_mean,
    clustered_quantile,
    clustered_rate,
    clustered_ratio,
    win_rates,
)
from rlhf_cluster.functional.statistics import wilson_interval

finite = st.floats(-100, 100)


@given(st.lists(st.tuples(finite, st.integers(0, 5)), min_size=1, max_size=30), st.integers(0, 3))
def test_a_mean_is_numpys_lies_in_its_interval_and_the_seed_repeats_it(pairs, seed):
    values, clusters = zip(*pairs, strict=True)
    interval = clustered_mean(values, clusters, seed=seed)
    assert interval.value == pytest.approx(np.mean(values), abs=1e-9)
    if len(set(clusters)) > 1:
        assert interval.low <= interval.value <= interval.high
        assert interval == clustered_mean(values, clusters, seed=seed)
    else:
        assert math.isnan(interval.low)


def test_copies_of_a_prompts_value_make_nobody_surer():
    values = np.random.default_rng(0).normal(size=50)
    once = clustered_mean(values, range(50))
    eightfold = clustered_mean(np.repeat(values, 8), np.repeat(np.arange(50), 8))
    as_if_independent = clustered_mean(np.repeat(values, 8), range(400))
    assert eightfold == pytest.approx(once)
    assert as_if_independent.high - as_if_independent.low < (once.high - once.low) / 2


def test_nineteen_of_twenty_intervals_hold_the_truth():
    draw = np.random.default_rng(7)
    held = 0
    for seed in range(100):
        prompts = np.repeat(draw.normal(size=60), 4)  # how hard a prompt is, and the noise of each answer
        values = prompts + 0.5 * draw.normal(size=240)
        low, high = clustered_mean(values, np.repeat(np.arange(60), 4), seed=seed)[1:]
        held += low <= 0 <= high
    assert 0.89 <= held / 100 <= 0.99


def test_a_ratio_counts_every_token_alike():
    nats, tokens = [2.0, 2.0, 6.0], [4, 1, 5]
    assert clustered_ratio(nats, tokens, ["a", "a", "b"]).value == pytest.approx(10 / 10)
    assert math.isnan(clustered_ratio([0.0], [0], ["a"]).value)


def test_a_rate_at_its_end_has_wilsons_interval_and_others_do_not():
    assert clustered_rate([1.0] * 20) == wilson_interval(20, 20)
    assert clustered_rate([0.0] * 20) == wilson_interval(0, 20)
    half = clustered_rate([0.5] * 20)
    assert half == pytest.approx((0.5, 0.5, 0.5)), "of prompts that all are even nothing else can be drawn"


@given(st.lists(finite, min_size=1, max_size=40), st.floats(0.01, 1.0))
def test_a_quantile_is_numpys_inverted_cdf(values, quantile):
    interval = clustered_quantile(values, range(len(values)), quantile=quantile)
    ordered = np.sort(values)
    expected = ordered[max(math.ceil(quantile * len(values) - 1e-7), 1) - 1]
    assert interval.value == pytest.approx(expected)


def test_many_values_are_drawn_in_stretches_with_the_same_result(monkeypatch):
    values, clusters = np.arange(40.0) ** 2, np.arange(40) // 2
    whole = clustered_quantile(values, clusters, quantile=0.5)
    monkeypatch.setattr("rlhf_cluster.functional.clusters.MAX_DRAWN", 40 * 7)
    assert clustered_quantile(values, clusters, quantile=0.5) == whole


def test_win_rates_count_all_pairs_of_a_prompt_and_ties_half():
    rates = win_rates([1, 2, 5, math.nan], ["a", "a", "b", "c"], [1, 0, 0, 9], ["a", "a", "c", "b"])
    assert rates == {"a": (0.5 + 1 + 1 + 1) / 4, "b": 0.0}


@given(
    st.lists(st.tuples(finite, st.integers(0, 3)), min_size=1),
    st.lists(st.tuples(finite, st.integers(0, 3)), min_size=1),
)
def test_the_win_rates_of_two_add_to_one(ours, theirs):
    forth = win_rates(*zip(*ours, strict=True), *zip(*theirs, strict=True))
    back = win_rates(*zip(*theirs, strict=True), *zip(*ours, strict=True))
    assert forth.keys() == back.keys()
    for name, rate in forth.items():
        assert rate + back[name] == pytest.approx(1.0)


def test_values_without_a_cluster_each_are_refused():
    with pytest.raises(ValueError, match="3 values of 2 clusters"):
        clustered_mean([1, 2, 3], [0, 1])
