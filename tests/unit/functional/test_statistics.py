"""Statistics of evaluations against numbers worked out by hand or counted out, and the laws they obey."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.functional import statistics


def test_the_standard_error_is_of_the_sample_deviation():
    # Mean 3; squared deviations 4 + 1 + 0 + 9 = 14; sqrt(14 / 3 / 4).
    mean, error = statistics.mean_and_error([1.0, 2.0, 3.0, 6.0])
    assert (mean, error) == pytest.approx((3.0, math.sqrt(14 / 12)))


def test_a_single_value_has_a_mean_and_no_error():
    mean, error = statistics.mean_and_error([2.0])
    assert mean == 2.0
    assert math.isnan(error)


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=6), st.integers(1, 5))
def test_the_repetition_of_a_whole_batch_is_that_of_each_of_its_sequences(sequences, n):
    token_ids = np.array([token for sequence in sequences for token in sequence], np.int32)
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    found = statistics.repetition_of_each(token_ids, lengths, n=n)
    assert found.tolist() == pytest.approx([statistics.repetition_n(sequence, n=n) for sequence in sequences])


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_that_hold_a_correct_one(num_samples, data):
    num_correct = data.draw(st.integers(0, num_samples))
    k = data.draw(st.integers(1, num_samples))
    choices = list(combinations(range(num_samples), k))
    passed = sum(any(sample < num_correct for sample in choice) for choice in choices)
    assert statistics.pass_at_k(num_samples, num_correct, k=k) == pytest.approx(passed / len(choices))


@given(st.integers(1, 300), st.data())
def test_pass_at_k_rises_with_k_and_with_correct_samples_and_stays_a_rate(num_samples, data):
    num_correct = data.draw(st.integers(0, num_samples))
    k = data.draw(st.integers(1, num_samples))
    value = statistics.pass_at_k(num_samples, num_correct, k=k)
    assert 0 <= value <= 1
    assert statistics.pass_at_k(num_samples, num_correct, k=1) == pytest.approx(num_correct / num_samples)
    if k > 1:
        assert value >= statistics.pass_at_k(num_samples, num_correct, k=k - 1) - 1e-12
    if num_correct < num_samples:
        assert value <= statistics.pass_at_k(num_samples, num_correct + 1, k=k) + 1e-12


def test_pass_at_k_takes_all_problems_at_once():
    np.testing.assert_allclose(statistics.pass_at_k([4, 4], [0, 2], k=2), [0.0, 5 / 6])


@pytest.mark.parametrize(("arguments", "words"), [((4, 1, 5), "pass@5 of 4"), ((4, 5, 1), "num_correct 5")])
def test_pass_at_k_refuses_what_cannot_be_counted(arguments, words):
    num_samples, num_correct, k = arguments
    with pytest.raises(ValueError, match=words):
        statistics.pass_at_k(num_samples, num_correct, k=k)


def test_wilson_matches_its_definition():
    # Its bounds are the two rates p with (p_hat - p)^2 = z^2 p (1 - p) / n, the roots of a quadratic.
    rate, z2, trials = 0.3, 1.959963984540054**2, 20
    roots = np.roots([1 + z2 / trials, -(2 * rate + z2 / trials), rate**2])
    interval = statistics.wilson_interval(6, trials)
    assert interval == pytest.approx((rate, min(roots), max(roots)))
    assert interval.low == pytest.approx(0.1455, abs=5e-5)


@given(st.integers(0, 1000), st.data(), st.floats(0.5, 0.999))
def test_wilson_holds_its_estimate_within_the_unit_interval_and_is_symmetric(trials, data, confidence):
    successes = data.draw(st.integers(0, trials))
    interval = statistics.wilson_interval(successes, trials, confidence=confidence)
    mirrored = statistics.wilson_interval(trials - successes, trials, confidence=confidence)
    assert 0 <= interval.low <= interval.high <= 1
    assert (interval.low, interval.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))
    if trials:
        assert interval.low <= interval.value <= interval.high


def test_wilson_covers_the_true_rate_about_as_often_as_it_says():
    # Exactly, by the binomial probabilities of all outcomes of 40 trials at a rate of 0.1.
    covered = 0.0
    for successes in range(41):
        interval = statistics.wilson_interval(successes, 40, confidence=0.95)
        if interval.low <= 0.1 <= interval.high:
            covered += math.comb(40, successes) * 0.1**successes * 0.9 ** (40 - successes)
    assert covered == pytest.approx(0.95, abs=0.02)


def test_nobody_tried_means_nothing_is_known():
    interval = statistics.wilson_interval(0, 0)
    assert math.isnan(interval.value)
    assert (interval.low, interval.high) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "trials", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 95)])
def test_impossible_counts_are_refused(successes, trials, confidence):
    with pytest.raises(ValueError, match=r"expected 0 <= successes|confidence 95"):
        statistics.wilson_interval(successes, trials, confidence=confidence)


def test_a_tie_is_half_a_win():
    assert statistics.win_rate(6, 2, 4) == statistics.wilson_interval(8, 12)
    assert statistics.win_rate(0, 0, 5).value == 0.5


def test_a_paired_difference_takes_out_how_hard_each_prompt_is():
    draw = np.random.default_rng(0)
    hardness, noise = 10 * draw.normal(size=200), 0.1 * draw.normal(size=200)
    interval = statistics.paired_difference(hardness + 0.5 + noise, hardness, seed=1)
    assert interval.low < 0.5 < interval.high
    # 4 standard errors of the differences, where unpaired it would be about 4 of the hardness: 2.8.
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.1 / math.sqrt(200), rel=0.25)


def test_the_bootstrap_is_the_same_for_the_same_seed():
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (statistics.paired_difference(values, 0 * values, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_values_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="2 and 3 values"):
        statistics.paired_difference([1, 2], [1, 2, 3], seed=0)


def test_a_reliability_curve_counts_each_value_in_its_bin():
    curve = statistics.reliability([0.0, 0.1, 0.5, 0.9, 1.0], [0, 1, 1, 1, 0], num_bins=2)
    assert curve.edges.tolist() == [0.0, 0.5, 1.0]
    assert curve.counts.tolist() == [2, 3]
    np.testing.assert_allclose(curve.predicted, [0.05, 0.8])
    np.testing.assert_allclose(curve.observed, [0.5, 2 / 3])
    assert curve.expected_error == pytest.approx(2 / 5 * 0.45 + 3 / 5 * (0.8 - 2 / 3))


@given(st.lists(st.integers(0, 10), min_size=1, max_size=20), st.integers(1, 20))
def test_a_perfectly_calibrated_set_has_no_error(tenths, num_bins):
    # Of every ten values with probability t / 10, t happen.
    probabilities = np.repeat(np.array(tenths) / 10, 10)
    outcomes = np.concatenate([np.arange(10) < t for t in tenths])
    assert statistics.reliability(probabilities, outcomes, num_bins=num_bins).expected_error == pytest.approx(0.0)


def test_empty_bins_are_not_a_number_and_weigh_nothing():
    curve = statistics.reliability([0.95, 0.95], [1, 1], num_bins=10)
    assert np.isnan(curve.observed[:9]).all()
    assert curve.expected_error == pytest.approx(0.05)


def test_the_brier_score_is_a_mean_square():
    assert statistics.brier_score([0.8, 0.5, 0.0], [1, 0.5, 1]) == pytest.approx((0.04 + 0 + 1) / 3)
    assert statistics.brier_score([0.5] * 4, [0, 1, 1, 0]) == 0.25


@pytest.mark.parametrize(
    ("probabilities", "outcomes", "words"),
    [([0.5], [1, 0], "1 probabilities and 2"), ([1.5], [1], "between 1.5"), ([], [], "at least one")],
)
def test_what_is_no_probability_is_refused(probabilities, outcomes, words):
    with pytest.raises(ValueError, match=words):
        statistics.reliability(probabilities, outcomes)


def test_distinct_n_is_pooled_over_sequences():
    # Bigrams ab, ba, ab of the first and ab of the second: 2 of 4 differ.
    assert statistics.distinct_n([[1, 2, 1, 2], [1, 2]], n=2) == 0.5
    assert statistics.distinct_n([[1, 2, 3]], n=1) == 1.0
    assert math.isnan(statistics.distinct_n([[1]], n=2))


def test_repetition_is_the_share_of_ngrams_seen_before():
    assert statistics.repetition_n([7] * 10, n=4) == pytest.approx(6 / 7)
    assert statistics.repetition_n(np.arange(10), n=4) == 0.0
    assert statistics.repetition_n([1, 2], n=4) == 0.0


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 4))
def test_distinct_and_repetition_are_two_sides_of_one_sequence(tokens, n):
    if len(tokens) >= n:
        assert statistics.distinct_n([tokens], n=n) == pytest.approx(1 - statistics.repetition_n(tokens, n=n))


def test_ngrams_of_nothing_are_refused():
    with pytest.raises(ValueError, match="n = 0"):
        statistics.distinct_n([[1]], n=0)


def test_accuracy_by_size_puts_the_smallest_margins_first_and_loses_none():
    margins, correct = [-0.1, 0.2, -3.0, 4.0, 0.0, 2.0], [0, 1, 1, 1, 0.5, 1]
    found = statistics.accuracy_by_size(margins, correct, num_bins=2)
    assert [(least, largest, number) for least, largest, number, _ in found] == [(0.0, 0.2, 3), (2.0, 4.0, 3)]
    assert [accuracy.value for *_, accuracy in found] == [0.5, 1.0]


def test_accuracy_by_size_of_equal_margins_is_one_bin():
    ((least, largest, number, accuracy),) = statistics.accuracy_by_size([1.0, -1.0, 1.0], [1, 0, 1])
    assert (least, largest, number) == (1.0, 1.0, 3)
    assert accuracy.value == pytest.approx(2 / 3)
