"""DPO: the policy's own log-ratios to the reference are the reward that the pair is to prefer rightly.

Rafailov et al., arXiv:2305.18290. The fields select its variants: cDPO (`label_smoothing`), IPO and hinge
(`loss_type`), a likelihood term on the preferred completion (`sft_coef`), length normalisation, and none of the
reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rlhf_cluster.algorithms.base import GroupLoss, TokenColumns
from rlhf_cluster.algorithms.pairs import PairAlgorithm, PairColumns, reference_of
from rlhf_cluster.functional import preference

if TYPE_CHECKING:
    import torch


class DPO(PairAlgorithm):
    """Per pair: `f(h) + sft_coef * nll(chosen)`, h the log-ratio of the chosen completion minus that of the other."""

    type: Literal["dpo"] = "dpo"
    loss_type: preference.PairLoss = "sigmoid"
    """`sigmoid` is DPO: -log sigmoid(beta h); `ipo`: (h - 1 / (2 beta))^2; `hinge`: max(0, 1 - beta h)."""
    beta: float = Field(default=0.1, gt=0)
    """How dear it is to leave the reference: greater keeps nearer. IPO's tau."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The probability that a label is wrong; above 0 with `sigmoid` it is cDPO."""
    length_normalised: bool = False
    """Average log-ratios over a completion's tokens; false sums them, as the papers of DPO and IPO do."""
    sft_coef: float = Field(default=0.0, ge=0)
    """Weight of the chosen completion's negative log-likelihood, averaged over its tokens (arXiv:2404.19733)."""
    reference_free: bool = False
    """Take log-probabilities for log-ratios, as if the reference were uniform. No reference is scored then."""
    keep_ties: bool = False
    """Learn from ties, as a label that is wrong half of the time: they hold h at 0. False drops them."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward"} if self.reference_free else {"reward", "reference"})

    @property
    def teaches_ties(self) -> bool:
        return self.keep_ties

    def loss(self, columns: TokenColumns) -> GroupLoss:
        """Metrics: those of `PairColumns.figures`, of rewards `beta * log_ratio`, and `nll` with `sft_coef`."""
        pairs = PairColumns.of(columns)
        log_ratio_N = columns.logprobs_N if self.reference_free else columns.logprobs_N - reference_of(columns)
        chosen_G, rejected_G = pairs.means(log_ratio_N) if self.length_normalised else pairs.totals(log_ratio_N)
        loss_G = preference.dpo_loss(
            chosen_G,
            rejected_G,
            beta=self.beta,
            loss_type=self.loss_type,
            label_smoothing=chosen_G.new_full((), self.label_smoothing).where(~pairs.tied_G, 0.5),
        )
        metrics = pairs.figures(self.beta * chosen_G, self.beta * rejected_G)
        if self.sft_coef > 0:
            nll_G = _chosen_nll(pairs)
            loss_G, metrics["nll"] = loss_G + self.sft_coef * nll_G, nll_G.detach()
        return GroupLoss(loss_G=loss_G, metrics=metrics)


def _chosen_nll(pairs: PairColumns) -> torch.Tensor:
    """float [G], averaged over tokens; 0 in a tie, where nothing was chosen."""
    chosen_G, _ = pairs.means(pairs.columns.logprobs_N)
    return (-chosen_G).where(~pairs.tied_G, 0)
