"""A judge that follows a rule: the difference of a reward function's two values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rlhf_cluster.rewards.judges.base import Comparison, Judgement, Verdict
from rlhf_cluster.rewards.judges.settings import RuleJudgeSettings
from rlhf_cluster.rewards.pool import FunctionPool
from rlhf_cluster.rewards.sample import Failure, Outcome
from rlhf_cluster.rewards.settings import FunctionReward


class RuleJudge:
    """The function runs in a process of its own, as rewards do."""

    def __init__(self, settings: RuleJudgeSettings) -> None:
        reward = FunctionReward(
            name="rule", function=settings.function, args=settings.args, time_limit_s=settings.time_limit_s
        )
        self._scale = settings.scale
        self._pool = FunctionPool([reward])

    async def start(self) -> None:
        await self._pool.start()

    async def compare(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        samples = [sample for each in comparisons for sample in (each.a, each.b)]
        outcomes = await self._pool.score("rule", samples) if samples else []
        return [self._verdict(a, b) for a, b in zip(outcomes[::2], outcomes[1::2], strict=True)]

    async def close(self) -> None:
        await self._pool.close()

    def _verdict(self, a: Outcome, b: Outcome) -> Judgement:
        for outcome in (a, b):
            if isinstance(outcome, Failure):
                return outcome
        assert not isinstance(a, Failure)
        assert not isinstance(b, Failure)
        return Verdict(p_a=preference(a - b, scale=self._scale), reason=f"{a:g} against {b:g}")


def preference(gap: float, *, scale: float | None) -> float:
    """P(a is preferred) where a's reward is `gap` above b's: sigmoid(scale * gap), the Bradley-Terry model; without a
    scale 1, 0, or 0.5 for a gap of 0.

    >>> preference(-2.0, scale=None), preference(0.0, scale=3.0)
    (0.0, 0.5)
    """
    if scale is None:
        return 0.5 if gap == 0 else float(gap > 0)
    # Written with tanh, which does not overflow.
    return 0.5 * (1 + math.tanh(scale * gap / 2))
