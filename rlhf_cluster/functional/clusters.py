"""Figures of completions that share prompts, with confidence intervals that know it.

Several completions of one prompt are alike, so they say less than as many of different prompts. Every interval here is
a percentile bootstrap over clusters (Efron 1979; clusters: Davison and Hinkley 1997, section 3.8): whole prompts are
drawn with replacement, as many as there are, and a prompt brings all its completions along. numpy only.

What all functions share: `clusters_N` [N] names the prompt of each value; the same `seed` gives the same interval, and
figures over the same clusters draw the same prompts. With one cluster nothing is known of the spread: the bounds are
NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rlhf_cluster.functional.statistics import Interval, wilson_interval

NUM_RESAMPLES = 2000
MAX_DRAWN = 4_000_000
"""Numbers of one stretch of resamples held at a time."""


def clustered_mean(values_N: Any, clusters_N: Any, *, seed: int = 0, confidence: float = 0.95) -> Interval:
    """The mean over all values: a prompt counts by how many it has."""
    values_N = np.asarray(values_N, dtype=np.float64)
    return clustered_ratio(values_N, np.ones_like(values_N), clusters_N, seed=seed, confidence=confidence)


def clustered_ratio(
    numerators_N: Any, denominators_N: Any, clusters_N: Any, *, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """`sum(numerators) / sum(denominators)`, such as nats over tokens: every token counts alike."""
    cluster_N, num_clusters = _numbered(numerators_N, clusters_N)
    numerators_P = np.bincount(cluster_N, weights=np.asarray(numerators_N, np.float64), minlength=num_clusters)
    denominators_P = np.bincount(cluster_N, weights=np.asarray(denominators_N, np.float64), minlength=num_clusters)
    if not denominators_P.sum():
        return Interval(math.nan, math.nan, math.nan)
    value = float(numerators_P.sum() / denominators_P.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn_R = np.concatenate(
            [drawn_RP @ numerators_P / (drawn_RP @ denominators_P) for drawn_RP in _draws(num_clusters, seed=seed)]
        )
    return _bounded(value, drawn_R, num_clusters=num_clusters, confidence=confidence)


def clustered_rate(rates_P: Any, *, seed: int = 0, confidence: float = 0.95) -> Interval:
    """The mean of one rate in [0, 1] for each of P prompts, such as its win rate or its pass@k.

    Where all prompts have the same rate of 0 or of 1 a bootstrap would be certain after three of them; Wilson's
    interval over prompts stands there instead.
    """
    rates_P = np.asarray(rates_P, dtype=np.float64)
    if len(rates_P) and np.ptp(rates_P) == 0 and rates_P[0] in (0.0, 1.0):
        return wilson_interval(float(rates_P.sum()), len(rates_P), confidence=confidence)
    return clustered_mean(rates_P, np.arange(len(rates_P)), seed=seed, confidence=confidence)


def clustered_quantile(
    values_N: Any, clusters_N: Any, *, quantile: float, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """The smallest value that at least `quantile` of all values do not exceed (the inverse of the distribution
    function, numpy's `inverted_cdf`)."""
    cluster_N, num_clusters = _numbered(values_N, clusters_N)
    values_N = np.asarray(values_N, dtype=np.float64)
    order_N = np.argsort(values_N, kind="stable")
    sorted_N, cluster_N = values_N[order_N], cluster_N[order_N]
    value = float(sorted_N[_rank(np.ones((1, len(sorted_N))), quantile)[0]])
    drawn_R = np.concatenate(
        [
            sorted_N[_rank(drawn_RP[:, cluster_N], quantile)]
            for drawn_RP in _draws(num_clusters, seed=seed, num_values=len(sorted_N))
        ]
    )
    return _bounded(value, drawn_R, num_clusters=num_clusters, confidence=confidence)


def win_rates(ours_N: Any, our_clusters_N: Any, theirs_M: Any, their_clusters_M: Any) -> dict[Any, float]:
    """By prompt that both have: how often a completion of ours is worth more than one of theirs, over all pairs of the
    two, ties counted half (the Mann-Whitney statistic, 1947, over the number of pairs). NaN values are left out."""
    ours, theirs = _by_cluster(ours_N, our_clusters_N), _by_cluster(theirs_M, their_clusters_M)
    rates = {}
    for name in ours.keys() & theirs.keys():
        gaps = np.subtract.outer(ours[name], theirs[name])
        rates[name] = float((gaps > 0).mean() + (gaps == 0).mean() / 2)
    return {name: rates[name] for name in ours if name in rates}


def _by_cluster(values_N: Any, clusters_N: Any) -> dict[Any, np.ndarray]:
    found: dict[Any, list[float]] = {}
    for value, name in zip(np.asarray(values_N, np.float64).tolist(), clusters_N, strict=True):
        if not math.isnan(value):
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def _numbered(values_N: Any, clusters_N: Any) -> tuple[np.ndarray, int]:
    """int [N], the clusters as 0..P-1 in the order in which they first appear, and P."""
    if len(values_N) != len(clusters_N) or not len(values_N):
        raise ValueError(f"{len(values_N)} values of {len(clusters_N)} clusters: each value, at least one, has its own")
    numbers: dict[Any, int] = {}
    cluster_N = [numbers.setdefault(name, len(numbers)) for name in np.asarray(clusters_N).tolist()]
    return np.array(cluster_N), len(numbers)


def _draws(num_clusters: int, *, seed: int, num_values: int = 0) -> Iterator[np.ndarray]:
    """How often each cluster is in each of the resamples, int [R, P], in stretches."""
    generator = np.random.default_rng(seed)
    at_a_time = max(1, min(NUM_RESAMPLES, MAX_DRAWN // max(num_clusters, num_values)))
    shares_P = np.full(num_clusters, 1 / num_clusters)
    for first in range(0, NUM_RESAMPLES, at_a_time):
        yield generator.multinomial(num_clusters, shares_P, size=min(at_a_time, NUM_RESAMPLES - first))


def _rank(weights_RN: np.ndarray, quantile: float) -> np.ndarray:
    """int [R], the first of N sorted values at which the weights reach `quantile` of their sum."""
    totals_RN = weights_RN.cumsum(axis=1)
    return (totals_RN >= quantile * totals_RN[:, -1:] - 1e-9).argmax(axis=1)


def _bounded(value: float, drawn_R: np.ndarray, *, num_clusters: int, confidence: float) -> Interval:
    """Percentiles; NaN where there was but one cluster to draw from. Resamples without a denominator do not count."""
    if num_clusters < 2:
        return Interval(value, math.nan, math.nan)
    drawn_R = drawn_R[np.isfinite(drawn_R)]
    low, high = np.quantile(drawn_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))
