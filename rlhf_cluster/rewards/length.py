"""Rewards on how long a completion is: near a target, and not past a bound."""

from __future__ import annotations

from typing import Literal

from rlhf_cluster.rewards.sample import RewardSample


def length(
    sample: RewardSample, *, target: int, tolerance: int = 0, unit: Literal["tokens", "words", "chars"] = "tokens"
) -> float:
    """1.0 within `tolerance` of `target`; beyond it falls linearly, to 0.0 at a further distance of `target`."""
    if target < 1 or tolerance < 0:
        raise ValueError(f"target={target}, tolerance={tolerance}; the target is at least 1, the tolerance at least 0")
    measures = {"tokens": sample.num_tokens, "words": len(sample.completion.split()), "chars": len(sample.completion)}
    if unit not in measures:
        raise ValueError(f"unit={unit!r}; it is one of {', '.join(measures)}")
    excess = max(0, abs(measures[unit] - target) - tolerance)
    return max(0.0, 1.0 - excess / target)


def overlong(sample: RewardSample, *, max_tokens: int, margin_tokens: int) -> float:
    """DAPO's soft overlong punishment (arXiv:2503.14476, equation 13): 0.0 up to `max_tokens - margin_tokens`, from
    there linearly down to -1.0 at `max_tokens` and past it."""
    if not 0 < margin_tokens <= max_tokens:
        raise ValueError(f"margin_tokens={margin_tokens}; it lies between 1 and max_tokens={max_tokens}")
    free = max_tokens - margin_tokens
    return 0.0 - min(1.0, max(0, sample.num_tokens - free) / margin_tokens)
