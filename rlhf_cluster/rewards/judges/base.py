"""What a judge is asked, what it says, and how an answer for each order of the two options becomes one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rlhf_cluster.rewards.sample import Failure, RewardSample


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two completions of one prompt."""

    prompt: str
    """As a person would read it, without a chat template's marks."""
    a: RewardSample
    b: RewardSample

    @property
    def swapped(self) -> Comparison:
        return Comparison(prompt=self.prompt, a=self.b, b=self.a)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How sure a judge is that completion a is the better one."""

    p_a: float
    """In [0, 1]; 0.5 says that neither is better."""
    position_bias: float | None = None
    """How much the judge leans to whichever option is shown first, in [-0.5, 0.5], beyond what the two completions
    themselves explain; None for a judge that sees no order."""
    reason: str = ""


Judgement = Verdict | Failure
"""A judge that fails has no preference: a failure is not a tie."""


class Judge(Protocol):
    """Belongs to one event loop."""

    async def start(self) -> None:
        """Load what it needs. Raises `ConfigError` or `ModelError`."""
        ...

    async def compare(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """One for each, in order. Raises for nothing that a comparison or a service does."""
        ...

    async def close(self) -> None: ...


def averaged(first_in_order: float | Failure, first_when_swapped: float | Failure, *, reason: str = "") -> Judgement:
    """The verdict on a pair shown in both orders, each given as P(the option shown first is better).

    With p1 and p2 those two: `p_a` = (p1 + (1 - p2)) / 2, in which a constant leaning to the first place cancels, and
    `position_bias` = (p1 + p2 - 1) / 2, which is that leaning. (Position bias of language models as judges: Zheng et
    al. 2023, arXiv:2306.05685; averaging over both orders: Bai et al. 2022, arXiv:2212.08073.)
    """
    if isinstance(first_in_order, Failure):
        return first_in_order
    if isinstance(first_when_swapped, Failure):
        return first_when_swapped
    return Verdict(
        p_a=(first_in_order + 1 - first_when_swapped) / 2,
        position_bias=(first_in_order + first_when_swapped - 1) / 2,
        reason=reason,
    )
