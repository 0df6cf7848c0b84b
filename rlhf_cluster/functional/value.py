"""The critic's loss, and how much of the returns it explains. Tensors, per token, [N]; `reduce` holds the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Array = Any
"""A numpy array or a torch tensor: type checkers cannot follow one expression through both."""


def value_loss(
    values_N: torch.Tensor,
    returns_N: torch.Tensor,
    *,
    old_values_N: torch.Tensor | None = None,
    clip: float | None = None,
) -> torch.Tensor:
    """Half the squared error `0.5 (V - R)^2`, float [N], not averaged; gradient through `values_N` alone.

    With `clip` (an absolute distance, in units of the return) the clipped loss of PPO2, OpenAI baselines' second
    implementation of arXiv:1707.06347: `0.5 max((V - R)^2, (V' - R)^2)`, `V' = V_old + clamp(V - V_old, -clip, clip)`
    with `V_old` what the critic said when the batch was credited. The greater of the two, never the smaller: a value
    that moved more than `clip` towards its return gets no gradient, one that moved away still does. The half is
    baselines', TRL's and verl's; a coefficient of papers that leave it out is half of ours.
    """
    returns_N = returns_N.detach()
    squared_N = (values_N - returns_N) ** 2
    if clip is not None:
        if old_values_N is None:
            raise ValueError(f"clip = {clip} needs old_values_N, the values that the clipping is measured from")
        old_N = old_values_N.detach()
        clipped_N = old_N + (values_N - old_N).clamp(-clip, clip)
        squared_N = squared_N.maximum((clipped_N - returns_N) ** 2)
    return 0.5 * squared_N


def is_value_clipped(
    values_N: torch.Tensor, returns_N: torch.Tensor, *, old_values_N: torch.Tensor, clip: float
) -> torch.Tensor:
    """Where the clip of `value_loss` (arXiv:1707.06347) stops the gradient: bool [N]."""
    moved_N = values_N - old_values_N
    further_N = (old_values_N + moved_N.clamp(-clip, clip) - returns_N).abs() > (values_N - returns_N).abs()
    return (moved_N.abs() > clip) & further_N


def explained_variance(values_N: Array, returns_N: Array) -> Array:
    """`1 - Var(R - V) / Var(R)` over all entries, a scalar: 1 for a perfect critic, 0 for a constant, below 0 if worse.

    Numpy or torch. Population variances; any other ddof gives the same number. Where the returns do not vary there is
    nothing to explain: NaN, as in OpenAI baselines. A constant error is not seen: it is a variance that is explained.
    """
    spread = _variance(returns_N)
    return 1 - _variance(returns_N - values_N) / spread if spread > 0 else spread * float("nan")


def _variance(values_N: Array) -> Array:
    centred_N = values_N - values_N.mean()
    return (centred_N * centred_N).mean()
