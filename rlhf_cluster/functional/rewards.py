"""From the rewards of completions to those of tokens: where they stand, the KL beside them, their length and scale.

Numpy: the driver credits. Flat columns of N tokens with `lengths` (int [G], sum N), one completion after another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def per_token(
    rewards_G: np.ndarray, lengths: np.ndarray, *, kl_N: np.ndarray | None = None, kl_coef: float = 0.0
) -> np.ndarray:
    """Rewards of PPO on language models (InstructGPT, arXiv:2203.02155, section 3.5): float [N].

    `-kl_coef * kl_t` at each token, and at the last token of a completion its reward as well. `kl_N` is a per-token
    estimate in nats (`kl.estimate`); k1 gives the objective of the paper. A completion without tokens has nowhere to
    put its reward, and it is left out.
    """
    lengths = np.asarray(lengths)
    rewards_N = np.zeros(int(lengths.sum())) if kl_N is None else -kl_coef * np.asarray(kl_N, dtype=np.float64)
    filled_G = lengths > 0
    rewards_N[np.cumsum(lengths)[filled_G] - 1] += np.asarray(rewards_G)[filled_G]
    return rewards_N


def soft_overlong_penalty(lengths: np.ndarray, *, max_length: int, cache: int) -> np.ndarray:
    """Soft overlong punishment of DAPO (arXiv:2503.14476, equation 13), added to the reward: float [G] in [-1, 0].

    0 up to `max_length - cache` tokens, then falling linearly by 1 / cache a token, -1 at `max_length` and beyond. The
    paper has `max_length` 20480 with a `cache` of 4096. Raises `ValueError` unless 0 < cache <= max_length.
    """
    if not 0 < cache <= max_length:
        raise ValueError(f"cache = {cache} with max_length = {max_length}: set it between 1 and max_length")
    return np.clip((max_length - cache - np.asarray(lengths)) / cache, -1.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningMoments:
    """Count, mean and sum of squared deviations of all rewards so far: scales rewards by the deviation over a run.

    A value: `with_values` gives the next one. Merged pairwise (Chan, Golub and LeVeque 1979), so batches in any
    division give what all values at once would.
    """

    count: int = 0
    mean: float = 0.0
    squared: float = 0.0
    """Sum of (value - mean)^2."""

    def with_values(self, values: np.ndarray) -> RunningMoments:
        if len(values) == 0:
            return self
        count = self.count + len(values)
        gap = float(np.mean(values, dtype=np.float64)) - self.mean
        squared = float(np.sum((np.asarray(values, dtype=np.float64) - self.mean - gap) ** 2))
        return RunningMoments(
            count=count,
            mean=self.mean + gap * len(values) / count,
            squared=self.squared + squared + gap * gap * self.count * len(values) / count,
        )

    def std(self, *, ddof: int = 1) -> float:
        """Standard deviation, of the sample by default; 1 while fewer than two values are known."""
        return (self.squared / (self.count - ddof)) ** 0.5 if self.count > max(ddof, 1) else 1.0

    def scaled(self, rewards: np.ndarray, *, clip: float | None = None, eps: float = 1e-8) -> np.ndarray:
        """`reward / (std + eps)`, not centred, then cut to +-`clip`: reward scaling of "Secrets of RLHF"
        (arXiv:2307.04964). The caller says first, by `with_values`, whether the batch itself counts."""
        scaled = rewards / (self.std() + eps)
        return scaled if clip is None else scaled.clip(-clip, clip)
