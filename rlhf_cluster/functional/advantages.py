"""Advantages from the rewards of one group: how much better a completion is than its siblings.

Only arithmetic and array methods that numpy and torch share, so the driver can call these on numpy and a learner on
tensors. The group is the last axis; leading axes are independent groups of equal size.
"""

from __future__ import annotations

from typing import Any, Literal

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


def _centred(rewards_G: Array) -> Array:
    # Shifting by the first reward makes equal rewards exactly zero before the mean is taken: the rounding error of the
    # mean, divided by an equally tiny deviation, would otherwise look like an advantage.
    shifted_G = rewards_G - rewards_G[..., :1]
    return shifted_G - shifted_G.mean(axis=-1, keepdims=True)
