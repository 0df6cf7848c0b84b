"""SimPO: the reward of a completion is its average log-probability, and the preferred one is to win by a margin.

Meng et al., arXiv:2405.14734. No reference.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf_cluster.algorithms.base import GroupLoss, TokenColumns
from rlhf_cluster.algorithms.pairs import PairAlgorithm, PairColumns
from rlhf_cluster.functional import preference


class SimPO(PairAlgorithm):
    """Per pair: `-log sigmoid(beta * (mean logprob(chosen) - mean logprob(rejected)) - gamma)`."""

    type: Literal["simpo"] = "simpo"
    beta: float = Field(default=2.0, gt=0)
    """Turns an average log-probability into a reward; 2 to 10 in the paper."""
    gamma: float = Field(default=1.0, ge=0)
    """By how much the reward should be higher; half of `beta` is a usual start."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The probability that a label is wrong."""

    def loss(self, columns: TokenColumns) -> GroupLoss:
        """Metrics: those of `PairColumns.figures`, of rewards `beta * mean logprob`."""
        pairs = PairColumns.of(columns)
        chosen_G, rejected_G = pairs.means(columns.logprobs_N)
        loss_G = preference.simpo_loss(
            chosen_G, rejected_G, beta=self.beta, gamma=self.gamma, label_smoothing=self.label_smoothing
        )
        return GroupLoss(loss_G=loss_G, metrics=pairs.figures(self.beta * chosen_G, self.beta * rejected_G))
