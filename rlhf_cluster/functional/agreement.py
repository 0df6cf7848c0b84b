"""Whether labellers agree, and whether they favour a side: what preference labels are worth.

Labels are names of kinds without an order (first, second, tie). numpy only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rlhf_cluster.functional.statistics import Interval, wilson_interval


def cohens_kappa(labels_a: Any, labels_b: Any) -> float:
    """Cohen's kappa (1960, doi:10.1177/001316446002000104) of two labellers, unweighted: `(p_o - p_e) / (1 - p_e)`.

    Both are [P], what each said of the same P items. p_o is the share of items they agree on, p_e what they would by
    chance with the label frequencies that each has. 1 is perfect, 0 chance. NaN where both gave one and the same label
    throughout: chance alone agrees then.
    """
    labels_a, labels_b = np.asarray(labels_a), np.asarray(labels_b)
    if labels_a.shape != labels_b.shape or labels_a.ndim != 1 or not len(labels_a):
        raise ValueError(
            f"labels of shapes {labels_a.shape} and {labels_b.shape}: both label the same items, at least one"
        )
    by_chance = sum(float(np.mean(labels_a == label) * np.mean(labels_b == label)) for label in np.unique(labels_a))
    return _beyond_chance(float(np.mean(labels_a == labels_b)), by_chance)


def pairwise_agreement(labels_PR: Any) -> float:
    """Share of equal labels among all pairs of labellers of an item, pooled over items; NaN where no item has two.

    `labels_PR` is int [P, R], items by labellers, negative where a labeller did not label the item.
    """
    counts_PK = _counts(labels_PR)
    totals_P = counts_PK.sum(axis=1)
    num_pairs = float((totals_P * (totals_P - 1)).sum())
    return float((counts_PK * (counts_PK - 1)).sum()) / num_pairs if num_pairs else math.nan


def krippendorff_alpha(labels_PR: Any) -> float:
    """Krippendorff's alpha for nominal labels (Hayes and Krippendorff 2007, doi:10.1080/19312450709336664):
    `1 - D_observed / D_expected`.

    `labels_PR` as of `pairwise_agreement`; items with fewer than two labels are left out. Every label weighs alike,
    however many an item has. Any number of labellers, who need not have seen the same items; 1 is perfect, 0 chance.
    Chance draws pairs of labels without replacement, so with two labellers it is a little above Scott's pi. NaN where
    nothing can be compared or one label is all there is.
    """
    counts_PK = _counts(labels_PR)
    counts_PK = counts_PK[counts_PK.sum(axis=1) >= 2]
    if not len(counts_PK):
        return math.nan
    totals_P, totals_K = counts_PK.sum(axis=1), counts_PK.sum(axis=0)
    num_labels = totals_K.sum()
    agreed = ((counts_PK * (counts_PK - 1)).sum(axis=1) / (totals_P - 1)).sum() / num_labels
    by_chance = (totals_K * (totals_K - 1)).sum() / (num_labels * (num_labels - 1))
    return _beyond_chance(float(agreed), float(by_chance))


def position_bias(num_first: int, num_second: int, *, confidence: float = 0.95) -> Interval:
    """How often the completion that was shown first wins a decided comparison, with Wilson's interval.

    Ties are left out. Where sides are drawn by chance, 1/2 lies in the interval unless the labeller favours a side (for
    judges that are models see arXiv:2306.05685, section 3.3).
    """
    return wilson_interval(num_first, num_first + num_second, confidence=confidence)


def _counts(labels_PR: Any) -> np.ndarray:
    """int64 [P, K]: how many labellers gave an item each of the K labels."""
    labels_PR = np.asarray(labels_PR)
    if labels_PR.ndim != 2 or not np.issubdtype(labels_PR.dtype, np.integer):
        raise ValueError(
            f"labels of shape {labels_PR.shape} and type {labels_PR.dtype}: expected integers, items by labellers, "
            "negative where a labeller did not label the item"
        )
    kinds = np.unique(labels_PR[labels_PR >= 0])
    return (labels_PR[:, :, None] == kinds).sum(axis=1)


def _beyond_chance(agreed: float, by_chance: float) -> float:
    return math.nan if by_chance >= 1 else (agreed - by_chance) / (1 - by_chance)
