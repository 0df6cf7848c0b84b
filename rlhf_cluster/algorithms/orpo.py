"""ORPO: supervised fine-tuning on the preferred completion, whose odds are pushed above those of the other.

Hong et al., arXiv:2403.07691. No reference.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf_cluster.algorithms.base import GroupLoss, TokenColumns
from rlhf_cluster.algorithms.pairs import PairAlgorithm, PairColumns
from rlhf_cluster.functional import preference


class ORPO(PairAlgorithm):
    """Per pair: `nll(chosen) - odds_coef * log sigmoid(log odds(chosen) - log odds(rejected))`.

    Log-probabilities are averaged over a completion's tokens, the prompt not among them.
    """

    type: Literal["orpo"] = "orpo"
    odds_coef: float = Field(default=0.1, ge=0)
    """Weight of the odds-ratio term: lambda in the paper, beta in TRL."""

    def loss(self, columns: TokenColumns) -> GroupLoss:
        """Metrics: `PairColumns.figures` of rewards `odds_coef * mean logprob`, `nll` and `log_odds_ratio`."""
        pairs = PairColumns.of(columns)
        chosen_G, rejected_G = pairs.means(columns.logprobs_N)
        odds_G = preference.odds_ratio_loss(chosen_G, rejected_G)
        log_odds_ratio_G = preference.log_odds(chosen_G.detach()) - preference.log_odds(rejected_G.detach())
        return GroupLoss(
            loss_G=-chosen_G + self.odds_coef * odds_G,
            metrics={
                **pairs.figures(self.odds_coef * chosen_G, self.odds_coef * rejected_G),
                "nll": -chosen_G.detach(),
                "log_odds_ratio": log_odds_ratio_G,
            },
        )
