"""Which of two completions is preferred: by their rewards, by a noisy annotator of those, or by a judge's verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlhf_cluster.rewards.judges.base import Verdict
from rlhf_cluster.rewards.judges.rule import preference


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    choice: Literal["a", "b", "tie"]
    p_a: float
    """Probability of "a" under whoever gave the label."""


def by_rewards(gap: float, *, noise_scale: float | None, tie_band: float, draw: float) -> Label:
    """`gap` is reward a minus reward b; `draw` a uniform number in [0, 1), used only with a `noise_scale`.

    >>> by_rewards(0.5, noise_scale=None, tie_band=0.0, draw=0.0).choice
    'a'
    """
    p_a = preference(gap, scale=noise_scale)
    if abs(gap) <= tie_band:
        return Label(choice="tie", p_a=p_a)
    return Label(choice="a" if draw < p_a else "b", p_a=p_a)


def by_verdict(verdict: Verdict, *, tie_band: float) -> Label:
    """The judge's likelier one; within `tie_band` of 0.5 a tie."""
    if abs(verdict.p_a - 0.5) <= tie_band:
        return Label(choice="tie", p_a=verdict.p_a)
    return Label(choice="a" if verdict.p_a > 0.5 else "b", p_a=verdict.p_a)
