"""The clipped surrogate of PPO and its variants, and the clipped weight of CISPO, per token.

`ratio_N` is float [N], `exp(logprobs - old_logprobs)`, and carries the gradient; `advantages_N` is float [N] without
one. Nothing is masked or averaged here: `reduce` holds the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def surrogate_loss(
    ratio_N: torch.Tensor, advantages_N: torch.Tensor, *, low: float, high: float, dual: float | None = None
) -> torch.Tensor:
    """Clipped surrogate of PPO (arXiv:1707.06347, equation 7), negated: `-min(r A, clip(r, 1 - low, 1 + high) A)`.

    float [N]. `low == high` is PPO; `high > low` is clip-higher of DAPO (arXiv:2503.14476, section 3.1), which leaves
    unlikely tokens room to grow. `dual` (> 1) bounds the loss of negative advantages by `-dual A` (dual-clip PPO,
    arXiv:1912.09729), where the ratio alone would make it arbitrarily large; None leaves it unbounded, as PPO does.
    """
    gain_N = (ratio_N * advantages_N).minimum(ratio_N.clamp(1.0 - low, 1.0 + high) * advantages_N)
    if dual is not None:
        gain_N = gain_N.where(advantages_N >= 0, gain_N.maximum(dual * advantages_N))
    return -gain_N


def is_clipped(ratio_N: torch.Tensor, advantages_N: torch.Tensor, *, low: float, high: float) -> torch.Tensor:
    """Where the clip of `surrogate_loss` (arXiv:1707.06347) stops the gradient: bool [N].

    That is a ratio above `1 + high` with a positive advantage or below `1 - low` with a negative one; a ratio out of
    bounds on the other side is still pulled back. Dual clipping is not counted.
    """
    return ((ratio_N > 1.0 + high) & (advantages_N > 0)) | ((ratio_N < 1.0 - low) & (advantages_N < 0))


def cispo_loss(
    logprobs_N: torch.Tensor, ratio_N: torch.Tensor, advantages_N: torch.Tensor, *, low: float, high: float
) -> torch.Tensor:
    """CISPO (MiniMax-M1, arXiv:2506.13585, equation 4), negated: `-sg(clip(r, 1 - low, 1 + high)) A logprob`.

    float [N]; sg stops the gradient. The weight is clipped, never the gradient: every token goes on teaching, those
    that became much likelier with a bounded weight. `low = 1` bounds nothing below, as in the paper. `1 + high` is the
    bound itself; TRL's `epsilon_high` for this loss is that bound, 1 more than ours.
    """
    return -ratio_N.detach().clamp(1.0 - low, 1.0 + high) * advantages_N * logprobs_N
