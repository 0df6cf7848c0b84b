"""CISPO: the weight of a token is clipped, its gradient never is (MiniMax-M1, arXiv:2506.13585)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlhf_cluster.algorithms.base import TokenColumns, TokenLoss
from rlhf_cluster.algorithms.siblings import GroupRelative
from rlhf_cluster.functional import clipping, importance

if TYPE_CHECKING:
    import torch


class CISPO(GroupRelative):
    """Per token: `-weight * clip(r, 1 - clip_low, 1 + clip_high) * A * log p`, where only `log p` has a gradient.

    Averaged over the tokens of the batch, as in the paper. `dual_clip` has no meaning here and is not read.
    """

    type: Literal["cispo"] = "cispo"
    clip_low: float = Field(default=1.0, ge=0, le=1)
    """The weight is bounded below by 1 - `clip_low`; 1 bounds nothing, as in the paper."""
    clip_high: float = Field(default=4.0, ge=0)
    """The weight is bounded above by 1 + `clip_high`; the bound 5 is ScaleRL's choice (arXiv:2510.13786)."""

    def surrogate(self, columns: TokenColumns, old_N: torch.Tensor) -> TokenLoss:
        ratio_N = importance.ratio(columns.logprobs_N, old_N).detach()
        loss_N = clipping.cispo_loss(
            columns.logprobs_N, ratio_N, columns.advantages_N, low=self.clip_low, high=self.clip_high
        )
        bounded_N = (ratio_N > 1.0 + self.clip_high) | (ratio_N < 1.0 - self.clip_low)
        return TokenLoss(loss_N=loss_N, metrics={"ratio": ratio_N, "clip_fraction": bounded_N.float()})
