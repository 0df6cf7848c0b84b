"""Whether the last number in the completion is the one in the row's answer, as in GSM8K-like tasks."""

from __future__ import annotations

import math
import re

from rlhf_cluster.errors import DataError
from rlhf_cluster.rewards.sample import RewardSample

# A minus right after a word or a bracket subtracts ("10-5" ends in 5); commas count only between groups of three.
NUMBER = re.compile(
    r"(?:(?<![\w)\]])[-\u2212])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?",
)


def number_match(sample: RewardSample, *, answer_column: str = "answer", tolerance: float = 1e-6) -> float:
    """1.0 when both numbers agree within `tolerance` (absolute, and relative to the larger one), else 0.0.

    A completion without a number is wrong: 0.0. A row without one is a fault of the data: `DataError`.
    """
    answer = sample.column(answer_column)
    expected = last_number(str(answer))
    if expected is None:
        raise DataError(f"column {answer_column!r} holds {answer!r}, in which there is no number to compare with")
    found = last_number(sample.completion)
    return float(found is not None and math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance))


def last_number(text: str) -> float | None:
    """The last finite decimal number in `text`: `-1,234.5`, `.5`, `2e-3`; None when there is none."""
    matches = NUMBER.findall(text)
    if not matches:
        return None
    number = float(matches[-1].replace(",", "").replace("\u2212", "-"))
    return number if math.isfinite(number) else None
