"""GSPO: GRPO whose ratio, and so its clipping, is of whole completions (arXiv:2507.18071)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlhf_cluster.algorithms.base import TokenColumns, TokenLoss
from rlhf_cluster.algorithms.siblings import GroupRelative
from rlhf_cluster.functional.importance import sequence_ratio, sequence_token_ratio
from rlhf_cluster.functional.reduce import Aggregation

if TYPE_CHECKING:
    import torch


class GSPO(GroupRelative):
    """Per token: `-weight * min(s A, clip(s, 1 - clip_low, 1 + clip_high) A)`, `s` the geometric mean of its
    completion's ratios. Averaged per completion first, as in the paper."""

    type: Literal["gspo"] = "gspo"
    clip_low: float = Field(default=3e-4, ge=0, le=1)
    """The ratio is clipped below at 1 - `clip_low`; a mean over many tokens moves far less than a token's ratio."""
    clip_high: float = Field(default=4e-4, ge=0)
    """The ratio is clipped above at 1 + `clip_high`."""
    aggregation: Aggregation = "sequence"
    """Mean per `sequence` first (the paper), over `token`s of the batch, or over a `constant` length."""
    importance: Literal["token", "sequence", "geometric", "masked", "none"] = "geometric"
    """Weight of policy over engine: of a completion as a whole, as the ratio is. The others are as in GRPO."""
    gradient: Literal["sequence", "token"] = "sequence"
    """`token` is GSPO-token: the same value, each token's gradient scaled by its own advantage. Differs only where
    advantages differ within a completion."""

    def surrogate(self, columns: TokenColumns, old_N: torch.Tensor) -> TokenLoss:
        whole = {"sequence_N": columns.sequence_N, "num_sequences": columns.num_sequences}
        if self.gradient == "token":
            ratio_N = sequence_token_ratio(columns.logprobs_N, old_N, **whole)
        else:
            ratio_N = sequence_ratio(columns.logprobs_N, old_N, **whole)[columns.sequence_N]
        return self._clipped(ratio_N, columns.advantages_N)
