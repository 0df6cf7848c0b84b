"""What a reward model's scores say of it, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlhf_cluster.driver.calibration import calibration_of
from rlhf_cluster.testing import make_group


def scored(number: int, labels, scores):
    group = make_group([2] * len(labels), request_id=number)
    return replace(
        group,
        prompt=replace(group.prompt, text=f"prompt {number}"),
        rewards=np.array(labels, np.float32),
        breakdown={"score": np.array(scores, np.float32)},
    )


def test_pairs_are_counted_by_their_labels_wherever_the_preferred_one_stands():
    found = calibration_of(
        [scored(0, [1, 0], [2.0, 0.0]), scored(1, [0, 1], [1.0, 0.0]), scored(2, [0.5, 0.5], [3.0, 1.0])],
        score="score",
        seed=0,
    )
    assert (found.num_pairs, found.num_ties) == (2, 1)
    assert found.accuracy.value == 0.5
    assert found.chosen == (2.0, 0.0)
    assert found.margins.tolist() == [2.0, -1.0]
    right, wrong = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(1.0))
    assert found.brier == pytest.approx(((1 - right) ** 2 + (1 - wrong) ** 2) / 2)
    assert found.curve.counts.sum() == 4, "both orders of each pair"
    assert found.by_label_gap == ()


def test_a_ranked_group_counts_as_its_pairs_and_equal_scores_as_half():
    found = calibration_of([scored(0, [3, 2, 1], [1.0, 1.0, 0.0])], score="score", seed=0)
    assert found.num_pairs == 3
    assert found.accuracy.value == pytest.approx((0.5 + 1 + 1) / 3)
    assert [number for _, _, number, _ in found.by_label_gap] == [2, 1]


def test_scores_that_mean_what_they_say_have_no_calibration_error():
    draw = np.random.default_rng(0)
    margins = draw.normal(0, 2, 2000)
    first_wins = draw.random(len(margins)) < 1 / (1 + np.exp(-margins))
    groups = [
        scored(number, [1, 0] if wins else [0, 1], [margin, 0.0])
        for number, (margin, wins) in enumerate(zip(margins, first_wins, strict=True))
    ]
    assert calibration_of(groups, score="score", seed=0).expected_error < 0.04


def test_without_a_decided_pair_there_is_no_report():
    assert calibration_of([scored(0, [0.5, 0.5], [1.0, 2.0])], score="score", seed=0) is None
