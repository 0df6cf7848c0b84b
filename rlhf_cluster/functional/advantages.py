"""Advantages from rewards: how much better a completion is than its siblings, and how values of a batch are whitened.

On numpy, as the driver calls these, and on tensors. For `group_relative` and `leave_one_out` the group is the last
axis; leading axes are independent groups of equal size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Array = Any
"""A numpy array or a torch tensor: type checkers cannot follow one expression through both."""


def group_relative(
    rewards_G: Array, *, scale: Literal["std", "none"] = "std", ddof: int = 1, eps: float = 1e-6
) -> Array:
    """Group-relative advantage of GRPO (DeepSeekMath, arXiv:2402.03300, section 4.1.2): `(r - mean) / (std + eps)`.

    `rewards_G` is float [..., G], G >= 1; the result has the same shape and sums to zero over each group. A group of
    equal rewards gives exact zeros. Nothing is masked: leave invalid completions out before the call.

    `scale="none"` keeps `r - mean` (Dr. GRPO, arXiv:2503.20783): no extra weight on groups that are very easy or very
    hard. `ddof=1` is the sample deviation, as in TRL and verl; `ddof=0` the population deviation, sqrt(G / (G - 1))
    smaller. `eps` is added to the deviation, not to the variance (1e-6 in verl, 1e-4 in TRL).
    """
    centred_G = _centred(rewards_G)
    if scale == "none":
        return centred_G
    num_completions = rewards_G.shape[-1]
    variance = (centred_G * centred_G).sum(axis=-1, keepdims=True) / max(num_completions - ddof, 1)
    return centred_G / (variance**0.5 + eps)


def leave_one_out(rewards_G: Array) -> Array:
    """Leave-one-out advantage of RLOO (arXiv:2402.14740): reward minus the mean of the other G - 1 rewards.

    float [..., G] -> float [..., G], G >= 2. Equals `G / (G - 1)` times the unscaled group-relative advantage; unlike
    that one its baseline does not depend on the completion it is subtracted from, so the gradient is unbiased.
    """
    num_completions = rewards_G.shape[-1]
    if num_completions < 2:
        raise ValueError(f"leave-one-out needs at least 2 completions in a group, got {num_completions}")
    return _centred(rewards_G) * (num_completions / (num_completions - 1))


def whiten(
    values: Array, mask: Array | None = None, *, shift_mean: bool = True, ddof: int = 1, eps: float = 1e-8
) -> Array:
    """`(values - mean) / sqrt(variance + eps)` over all entries where `mask` is true; None for all.

    Any shape, numpy or torch; `mask` (bool or 0/1) and the result have it too, 0 where the mask is false. PPO's
    advantages are whitened with `shift_mean=True`; `shift_mean=False` adds the mean back, which is how
    lm-human-preferences (arXiv:1909.08593) and TRL whiten rewards: their scale becomes 1 and their mean stays.

    `ddof=1` divides the squared deviations by n - 1 (TRL, verl), `ddof=0` by n (lm-human-preferences; OpenRLHF, for the
    global batch normalisation of REINFORCE++, arXiv:2501.03262). `eps` is added to the variance, not to the deviation.
    One entry, or entries that are all equal, give zeros up to rounding (their mean, if it is added back).
    """
    # Without a mask all of it, what is not a number too: it has to show.
    mask = (values * 0 != 1) if mask is None else mask != 0
    count = max(int(mask.sum()), 1)
    chosen = _where(mask, values)
    mean = chosen.sum() / count
    centred = _where(mask, chosen - mean)
    variance = (centred * centred).sum() / max(count - ddof, 1)
    whitened = centred / (variance + eps) ** 0.5
    return whitened if shift_mean else whitened + _where(mask, chosen * 0 + mean)


def whiten_together(
    columns: Sequence[np.ndarray], *, shift_mean: bool = True, ddof: int = 1, eps: float = 1e-8
) -> list[np.ndarray]:
    """`whiten` over all entries of several numpy columns at once, one a group: the normalisation of a whole batch."""
    if not columns:
        return []
    whitened = whiten(np.concatenate(columns), shift_mean=shift_mean, ddof=ddof, eps=eps)
    return np.split(whitened, np.cumsum([len(column) for column in columns])[:-1])


def _where(mask: Array, values: Array) -> Array:
    """`values` where the mask is true, 0 elsewhere."""
    return np.where(mask, values, np.zeros_like(values)) if isinstance(values, np.ndarray) else values.where(mask, 0)


def _centred(rewards_G: Array) -> Array:
    # Shifting by the first reward makes equal rewards exactly zero before the mean is taken: the rounding error of the
    # mean, divided by an equally tiny deviation, would otherwise look like an advantage.
    shifted_G = rewards_G - rewards_G[..., :1]
    return shifted_G - shifted_G.mean(axis=-1, keepdims=True)
