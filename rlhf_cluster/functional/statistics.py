"""Statistics of evaluations: means, rates, win rates and pass@k with their uncertainty, calibration, repetition.

numpy only. What is uncertain is returned as an `Interval`: an estimate with the bounds of its confidence interval.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np


class Interval(NamedTuple):
    """An estimate, `low` <= `value` <= `high`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """A reliability curve of B bins of equal width over [0, 1]; empty bins hold NaN."""

    edges: np.ndarray
    """float64 [B + 1]."""
    counts: np.ndarray
    """int64 [B]."""
    predicted: np.ndarray
    """float64 [B], mean probability."""
    observed: np.ndarray
    """float64 [B], mean outcome."""

    @property
    def expected_error(self) -> float:
        """Expected calibration error (Guo et al., arXiv:1706.04599, equation 3): |observed - predicted| of each bin,
        weighted by its share of the values."""
        filled = self.counts > 0
        gaps = np.abs(self.observed[filled] - self.predicted[filled])
        return float(np.sum(gaps * self.counts[filled]) / self.counts.sum())


def mean_and_error(values: Any) -> tuple[float, float]:
    """The mean and its standard error: the sample deviation (n - 1) over sqrt(n). NaN error for a single value."""
    values = _filled(values, "a mean")
    if len(values) < 2:
        return float(values.mean()), math.nan
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def pass_at_k(num_samples: Any, num_correct: Any, *, k: int) -> np.ndarray:
    """Unbiased pass@k of each problem (Codex, arXiv:2107.03374, equation 1): `1 - C(n - c, k) / C(n, k)`.

    `num_samples` (n >= k) and `num_correct` (c) are int [P] or numbers; the result is float64 of their shape. Its mean
    over problems is the benchmark's figure. Computed as a product, so large n overflow nothing.
    """
    n, c = np.broadcast_arrays(np.asarray(num_samples, dtype=np.int64), np.asarray(num_correct, dtype=np.int64))
    if not 1 <= k <= n.min(initial=k):
        raise ValueError(f"pass@{k} of {n.min(initial=k)} samples: k is between 1 and the samples of every problem")
    if ((c < 0) | (c > n)).any():
        raise ValueError(f"num_correct {c.tolist()}: each is between 0 and num_samples {n.tolist()}")
    # C(n - c, k) / C(n, k) is the chance that k draws without replacement are all wrong: one factor a draw.
    all_wrong = np.ones(n.shape)
    for draw in range(k):
        all_wrong *= np.maximum(n - c - draw, 0) / (n - draw)
    return 1.0 - all_wrong


def wilson_interval(num_successes: float, num_trials: int, *, confidence: float = 0.95) -> Interval:
    """A rate with Wilson's score interval (1927, doi:10.1080/01621459.1927.10502953).

    Two-sided, without a correction for continuity. Unlike the normal interval it stays within [0, 1] and is right at
    rates of 0 and 1. `num_successes` may be a fraction, where ties count half. No trials: NaN between 0 and 1.
    """
    if not 0 <= num_successes <= num_trials:
        raise ValueError(f"{num_successes} successes of {num_trials} trials: expected 0 <= successes <= trials")
    if num_trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    rate, z2 = num_successes / num_trials, _normal_quantile(confidence) ** 2
    centre = (rate + z2 / (2 * num_trials)) / (1 + z2 / num_trials)
    spread = math.sqrt(z2 * (rate * (1 - rate) / num_trials + z2 / (4 * num_trials**2))) / (1 + z2 / num_trials)
    return Interval(rate, min(max(centre - spread, 0.0), rate), max(min(centre + spread, 1.0), rate))


def win_rate(num_wins: int, num_losses: int, num_ties: int = 0, *, confidence: float = 0.95) -> Interval:
    """`(wins + ties / 2) / all` with Wilson's interval.

    A tie varies less than a win or a loss, so with ties the interval is wider than it need be, never narrower.
    """
    return wilson_interval(num_wins + num_ties / 2, num_wins + num_losses + num_ties, confidence=confidence)


def paired_difference(
    ours: Any, theirs: Any, *, seed: int, num_resamples: int = 2000, confidence: float = 0.95
) -> Interval:
    """Mean of `ours - theirs` (float [P] each, of the same P prompts) with a paired percentile bootstrap (Efron 1979).

    Prompts are drawn with replacement, both values of a prompt together, so how hard a prompt is cancels. The same
    `seed` gives the same interval.
    """
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(
            f"{len(ours)} and {len(theirs)} values: a paired difference needs one of each for every prompt"
        )
    differences = _filled(ours - theirs, "a paired difference")
    draw = np.random.default_rng(seed)
    means = [draw.choice(differences, len(differences)).mean() for _ in range(num_resamples)]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = float(differences.mean())
    return Interval(value, min(float(low), value), max(float(high), value))


def reliability(probabilities: Any, outcomes: Any, *, num_bins: int = 10) -> Reliability:
    """How often what was said to have probability p happened (Guo et al., arXiv:1706.04599), in bins of equal width.

    `probabilities` is float [P], of the event and not of the likelier side; for pairs it is sigmoid of the difference
    of two rewards, that the first is preferred. `outcomes` is [P] of 1 where it happened, 0 where not, 1/2 for a tie. A
    bin holds low <= p < high, the last one also p = 1.

    If all pairs are written with the preferred one first, every outcome is 1 and nothing is learned: the order must not
    depend on the outcome, or take both orders of every pair.
    """
    probabilities, outcomes = _probabilities_and_outcomes(probabilities, outcomes)
    bin_P = np.minimum((probabilities * num_bins).astype(np.int64), num_bins - 1)
    counts = np.bincount(bin_P, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            edges=np.linspace(0.0, 1.0, num_bins + 1),
            counts=counts,
            predicted=np.bincount(bin_P, weights=probabilities, minlength=num_bins) / counts,
            observed=np.bincount(bin_P, weights=outcomes, minlength=num_bins) / counts,
        )


def brier_score(probabilities: Any, outcomes: Any) -> float:
    """Mean of `(probability - outcome)^2` (Brier 1950), the one-sided form: 0 is perfect, 1/4 is saying 1/2 always.

    Arguments as of `reliability`. Brier's own form sums over both sides and is twice this.
    """
    probabilities, outcomes = _probabilities_and_outcomes(probabilities, outcomes)
    return float(np.mean((probabilities - outcomes) ** 2))


def accuracy_by_size(margins_P: Any, correct_P: Any, *, num_bins: int = 5) -> list[tuple[float, float, int, Interval]]:
    """How often a choice is right by how large its margin is: (least, largest, number, accuracy with Wilson's interval)
    of bins with as equal numbers as ties of the size allow, the smallest margins first.

    `margins_P` [P] is signed or not, its size counts; `correct_P` [P] is 1 where the choice was right, 0 where not, 1/2
    for a margin of 0.
    """
    sizes_P, correct_P = np.abs(_filled(margins_P, "a margin")), np.asarray(correct_P, dtype=np.float64)
    edges = np.quantile(sizes_P, np.linspace(0, 1, num_bins + 1)[1:-1])
    bin_P = np.searchsorted(edges, sizes_P, side="left")
    found = []
    for number in np.unique(bin_P):
        of_bin = bin_P == number
        sizes, correct = sizes_P[of_bin], correct_P[of_bin]
        interval = wilson_interval(float(correct.sum()), len(correct))
        found.append((float(sizes.min()), float(sizes.max()), len(sizes), interval))
    return found


def distinct_n(sequences: Sequence[Sequence[int]], *, n: int = 2) -> float:
    """Different n-grams over all n-grams, pooled over `sequences` (Li et al., arXiv:1510.03055): 1 is no repetition.

    The paper divides by tokens; by n-grams, as is usual now, it can reach 1. NaN if nothing is n long.
    """
    counts = Counter(gram for sequence in sequences for gram in _ngrams(sequence, n))
    return len(counts) / counts.total() if counts else math.nan


def repetition_n(sequence: Sequence[int], *, n: int = 4) -> float:
    """Share of n-grams of one sequence that occurred in it before (seq-rep-n, arXiv:1908.04319): 0 is no repetition.

    0 as well for a sequence shorter than n.
    """
    grams = _ngrams(sequence, n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def repetition_of_each(token_ids_N: np.ndarray, lengths_G: np.ndarray, *, n: int = 4) -> np.ndarray:
    """float64 [G], `repetition_n` of each of G sequences that lie one after another: of a whole batch in one sort.

    N-grams are compared by 64-bit hashes; in a million of them, one in 10^7 calls finds two alike that are not.
    """
    if n < 1:
        raise ValueError(f"n-grams with n = {n}: n is at least 1")
    sequence_N = np.repeat(np.arange(len(lengths_G)), lengths_G)
    num_grams = max(len(token_ids_N) - n + 1, 0)
    hashes = _mixed(sequence_N[:num_grams].astype(np.uint64))
    for start in range(n):
        hashes = _mixed(hashes ^ token_ids_N[start : start + num_grams].astype(np.uint64))
    is_within = sequence_N[:num_grams] == sequence_N[len(token_ids_N) - num_grams :]
    sequence_of_gram, hashes = sequence_N[:num_grams][is_within], hashes[is_within]
    _, firsts = np.unique(hashes, return_index=True)
    counts, num_different = (
        np.bincount(each, minlength=len(lengths_G)) for each in (sequence_of_gram, sequence_of_gram[firsts])
    )
    return 1.0 - (num_different + (counts == 0)) / np.maximum(counts, 1)


def _mixed(values: np.ndarray) -> np.ndarray:
    """uint64, each of whose bits depends on all bits of the value: the finaliser of splitmix64 (Steele et al. 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _ngrams(sequence: Sequence[int], n: int) -> list[tuple[int, ...]]:
    if n < 1:
        raise ValueError(f"n-grams with n = {n}: n is at least 1")
    tokens = np.asarray(sequence).tolist()
    return list(zip(*(tokens[start:] for start in range(n)), strict=False))


def _normal_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _probabilities_and_outcomes(probabilities: Any, outcomes: Any) -> tuple[np.ndarray, np.ndarray]:
    probabilities, outcomes = _filled(probabilities, "calibration"), np.asarray(outcomes, dtype=np.float64)
    if probabilities.shape != outcomes.shape:
        raise ValueError(f"{len(probabilities)} probabilities and {len(outcomes)} outcomes: one of each is needed")
    for name, values in (("probabilities", probabilities), ("outcomes", outcomes)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{name} between {values.min()} and {values.max()}: each is between 0 and 1")
    return probabilities, outcomes


def _filled(values: Any, purpose: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values of shape {values.shape}: {purpose} is of one row of at least one number")
    return values
