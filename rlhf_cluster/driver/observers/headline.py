"""The one held-out figure by which a job is judged: reward where there is one, else accuracy, else loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Headline:
    metric: str
    word: str
    """What people call it."""


HEADLINES = (
    Headline("eval/reward_mean", "reward"),
    Headline("eval/accuracy", "accuracy"),
    Headline("eval/loss", "loss"),
)


def headline(metrics: Mapping[str, float | None]) -> Headline | None:
    """Of an evaluation; None where it has none of the three.

    >>> headline({"eval/loss": 0.5, "eval/accuracy": 0.75}).word
    'accuracy'
    """
    return next((each for each in HEADLINES if is_number(metrics.get(each.metric))), None)


def is_number(value: float | None) -> bool:
    """Whether it is there and finite."""
    return value is not None and math.isfinite(value)
