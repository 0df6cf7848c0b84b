"""Agreement of labellers against published and hand-counted examples, and at its two ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.functional import agreement

labels = st.lists(st.integers(0, 2), min_size=2, max_size=30)


def test_kappa_of_a_table_counted_by_hand():
    # 50 items: both yes 20, both no 15, a alone 5, b alone 10. p_o = 35/50; a says yes 25/50, b 30/50, so
    # p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5 and kappa = 0.2 / 0.5.
    a = ["yes"] * 20 + ["no"] * 15 + ["yes"] * 5 + ["no"] * 10
    b = ["yes"] * 20 + ["no"] * 15 + ["no"] * 5 + ["yes"] * 10
    assert agreement.cohens_kappa(a, b) == pytest.approx(0.4)


@given(labels)
def test_labellers_who_say_the_same_agree_perfectly(said):
    kappa, alpha = agreement.cohens_kappa(said, said), agreement.krippendorff_alpha(np.array([said, said]).T)
    if len(set(said)) > 1:
        assert (kappa, alpha) == pytest.approx((1.0, 1.0))
    else:
        assert math.isnan(kappa)
        assert math.isnan(alpha)
    assert agreement.pairwise_agreement(np.array([said, said]).T) == 1.0


def test_independent_labellers_agree_by_chance():
    # Every pair of labels as often as its two frequencies multiply to: 1/4 and 3/4 against 1/2 and 1/2.
    a, b = np.array([0, 0, 1, 1, 1, 1, 1, 1]), np.array([0, 1, 0, 0, 0, 1, 1, 1])
    assert agreement.cohens_kappa(a, b) == pytest.approx(0.0)


@given(labels, st.randoms(use_true_random=False))
def test_kappa_does_not_see_who_is_first_nor_what_labels_are_called(said, random):
    other = [random.choice((label, random.randrange(3))) for label in said]
    names = {0: "a", 1: "b", 2: "c"}
    kappa = agreement.cohens_kappa(said, other)
    assert agreement.cohens_kappa(other, said) == pytest.approx(kappa, nan_ok=True)
    renamed = agreement.cohens_kappa([names[label] for label in said], [names[label] for label in other])
    assert renamed == pytest.approx(kappa, nan_ok=True)


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: 4 observers, 12 units, nominal 0.743.
PUBLISHED = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, -1, -1, -1],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, -1, 3],
    [-1, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, -1],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, -1],
]


def test_alpha_of_the_published_example_with_labels_missing():
    assert agreement.krippendorff_alpha(np.array(PUBLISHED).T) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_two_labellers_by_hand():
    # Items 00 01 11: labels 0 three times, 1 three times. D_o = 2/6; D_e = 2 * 3 * 3 / (6 * 5) = 3/5.
    assert agreement.krippendorff_alpha(np.array([[0, 0], [0, 1], [1, 1]])) == pytest.approx(1 - (1 / 3) / (3 / 5))


def test_pairwise_agreement_counts_pairs_of_labellers():
    # Three labellers of whom two agree: 1 of 3 pairs; two who agree: 1 of 1; one alone: no pair.
    assert agreement.pairwise_agreement(np.array([[0, 0, 1], [1, 1, -1], [1, -1, -1]])) == pytest.approx(2 / 4)


def test_where_no_item_has_two_labels_nothing_is_said():
    alone = np.array([[0, -1], [-1, 1]])
    assert math.isnan(agreement.pairwise_agreement(alone))
    assert math.isnan(agreement.krippendorff_alpha(alone))


def test_a_favoured_side_shows_and_a_fair_one_does_not():
    favoured, fair = agreement.position_bias(80, 20), agreement.position_bias(52, 48)
    assert favoured.value == 0.8
    assert favoured.low > 0.5
    assert fair.low < 0.5 < fair.high


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (agreement.cohens_kappa, ([1], [1, 2]), "same items"),
        (agreement.cohens_kappa, ([], []), "at least one"),
        (agreement.krippendorff_alpha, ([0, 1],), "items by labellers"),
        (agreement.pairwise_agreement, ([[0.5, 1.0]],), "expected integers"),
    ],
)
def test_labels_of_the_wrong_shape_are_refused(function, arguments, words):
    with pytest.raises(ValueError, match=words):
        function(*arguments)
