"""What a reward model's scores of held-out preferences say of it: accuracy, calibration, where it is right.

The Bradley-Terry model reads the difference of two scores as a probability: `sigmoid(chosen - rejected)` is how sure it
is that the first is preferred. Pure: from scored groups to a value that is written as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlhf_cluster.functional.clusters import clustered_mean
from rlhf_cluster.functional.statistics import (
    Interval,
    Reliability,
    accuracy_by_size,
    brier_score,
    mean_and_error,
    reliability,
)
from rlhf_cluster.records import RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Of P held-out pairs whose labels differ."""

    num_pairs: int
    num_ties: int
    """Pairs labelled as ties, which count for nothing else here."""
    accuracy: Interval
    """Pairs whose preferred completion scores higher, equal scores counted half; over prompts."""
    margin: tuple[float, float]
    """Score of the preferred one minus that of the other: mean and standard error."""
    brier: float
    """Mean squared error of the probability; 1/4 is a coin."""
    expected_error: float
    """Expected calibration error of `curve`."""
    curve: Reliability
    by_margin: tuple[tuple[float, float, int, Interval], ...]
    """(least, largest, pairs, accuracy) by how far apart the model's two scores are."""
    by_label_gap: tuple[tuple[float, float, int, Interval], ...]
    """The same by how far apart the two labels are; empty where all are equally far."""
    chosen: tuple[float, ...]
    """Score of the preferred completion of every pair."""
    rejected: tuple[float, ...]

    @property
    def margins(self) -> np.ndarray:
        return np.array(self.chosen) - np.array(self.rejected)


def calibration_of(groups: Sequence[RolloutGroup], *, score: str, seed: int, num_bins: int = 10) -> Calibration | None:
    """Of groups that hold labels as `rewards` and scores under `breakdown[score]`; None where no pair is decided.

    A group of more than two completions counts as its pairs.
    """
    pairs = [(group.prompt.text, *pair) for group in groups for pair in _pairs(group, score)]
    decided = [(prompt, chosen, rejected, gap) for prompt, chosen, rejected, gap in pairs if gap > 0]
    if not decided:
        return None
    prompts, *columns = zip(*decided, strict=True)
    chosen, rejected, gaps = (np.array(column, dtype=np.float64) for column in columns)
    margins = chosen - rejected
    correct = (np.sign(margins) + 1) / 2
    # Both orders of each pair: with the preferred one always first, every outcome would be 1.
    probability = 0.5 * (1 + np.tanh(np.concatenate([margins, -margins]) / 2))
    happened = np.repeat([1.0, 0.0], len(margins))
    curve = reliability(probability, happened, num_bins=num_bins)
    return Calibration(
        num_pairs=len(decided),
        num_ties=len(pairs) - len(decided),
        accuracy=clustered_mean(correct, prompts, seed=seed),
        margin=mean_and_error(margins),
        brier=brier_score(probability, happened),
        expected_error=curve.expected_error,
        curve=curve,
        by_margin=tuple(accuracy_by_size(margins, correct)),
        by_label_gap=tuple(accuracy_by_size(gaps, correct)) if np.ptp(gaps) else (),
        chosen=tuple(chosen.tolist()),
        rejected=tuple(rejected.tolist()),
    )


def _pairs(group: RolloutGroup, score: str) -> Iterator[tuple[float, float, float]]:
    """(score of the preferred one, score of the other, gap of the labels)."""
    assert group.rewards is not None, "a preference has its labels"
    labelled = sorted(zip(group.rewards.tolist(), group.breakdown[score].tolist(), strict=True), reverse=True)
    for (better, chosen), (worse, rejected) in combinations(labelled, 2):
        yield chosen, rejected, better - worse
