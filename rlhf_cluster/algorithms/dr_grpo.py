"""Dr. GRPO: GRPO without its two biases, towards easy or hard prompts and towards long wrong answers.

arXiv:2503.20783. Rewards are centred and not scaled; the loss is divided by a constant instead of by lengths.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf_cluster.algorithms.siblings import GroupRelative
from rlhf_cluster.functional.reduce import Aggregation


class DrGRPO(GroupRelative):
    """Per token: `-weight * min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)`, `A` the reward less the group's mean.

    The sum over tokens is divided by completions * `constant_length`.
    """

    type: Literal["dr_grpo"] = "dr_grpo"
    scale_rewards: Literal["std", "none"] = "none"
    """`none` leaves a group's centred rewards as they are, `std` divides them by their standard deviation (GRPO)."""
    aggregation: Aggregation = "constant"
    """Mean over a `constant` length, over `token`s of the batch (DAPO), or per `sequence` first (GRPO paper)."""
    constant_length: int | None = Field(default=1024, gt=0)
    """Normally the `max_new_tokens` of the rollouts. Another one scales loss and gradient, which matters to
    `max_grad_norm` and hardly to Adam."""
