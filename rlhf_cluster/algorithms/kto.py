"""KTO: each completion is desirable or not, by itself, and is worth what a loss-averse person would make of its gain.

Ethayarajh et al., arXiv:2402.01306. The paper measures gains from z0, the KL of the policy from the reference,
estimated over the whole batch from prompts paired with completions of others. A loss of one microbatch cannot know
that, so here z0 is the fixed number `kl_baseline`; at 0 this is APO-zero for unpaired data (arXiv:2408.06266). The
general form is `functional/preference.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from rlhf_cluster.algorithms.base import Algorithm, GroupLoss, TokenColumns
from rlhf_cluster.algorithms.pairs import groups_of, preference_of, reference_of
from rlhf_cluster.functional import preference, segments
from rlhf_cluster.records import RolloutGroup


class KTO(Algorithm):
    """Per completion: `weight * (1 - sigmoid(+-beta * (log_ratio - kl_baseline)))`, plus where it is desirable.

    Averaged over the completions of the batch. A group may have any number, one of them alone too.
    """

    by_group: ClassVar[bool] = True
    learns_from: ClassVar[tuple[Literal["rollouts", "data"], ...]] = ("data", "rollouts")
    whole_groups: ClassVar[bool] = True

    type: Literal["kto"] = "kto"
    beta: float = Field(default=0.1, gt=0)
    """How dear it is to leave the reference: greater keeps nearer."""
    desirable_above: float = 0.5
    """Completions with a reward above it are desirable, the others are not."""
    desirable_weight: float = Field(default=1.0, gt=0)
    """lambda_D. Raise it where desirable completions are the fewer."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """lambda_U. Raise it where undesirable completions are the fewer."""
    kl_baseline: float = Field(default=0.0, ge=0)
    """z0 in nats, fixed: the log-ratio, summed over tokens, at which a completion is neither gain nor loss."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward", "reference"})

    def drop_reason(self, group: RolloutGroup) -> str | None:
        """`too_few_valid`, or `no_tokens` where a completion has nothing to train on."""
        if group.num_completions == 0:
            return "too_few_valid"
        return None if group.trained_lengths.all() else "no_tokens"

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """+1 on every token of a desirable completion, -1 on the others."""
        return tuple(replace(group, advantages=group.per_token(self._signs(group))) for group in groups)

    def normaliser(self, groups: Sequence[RolloutGroup]) -> float:
        return float(max(sum(group.num_completions for group in groups), 1))

    def loss(self, columns: TokenColumns) -> GroupLoss:
        """Summed over the completions of a group. Metrics, averaged over them: `margin` (the reward
        `beta * (log_ratio - kl_baseline)`, negated where undesirable), `accuracy` (whether that is above 0; 1/2 at 0)
        and `log_ratio`.
        """
        group_S = groups_of(columns)
        log_ratio_N = columns.logprobs_N - reference_of(columns)
        log_ratio_S = segments.sums(log_ratio_N, columns.sequence_N, columns.num_sequences)
        sign_S = segments.first(columns.advantages_N, columns.sequence_N, columns.num_sequences)
        loss_S = preference.kto_loss(
            log_ratio_S,
            sign_S > 0,
            beta=self.beta,
            z0=self.kl_baseline,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        margin_S = sign_S * preference.implicit_reward(log_ratio_S.detach(), self.kl_baseline, beta=self.beta)
        figures_S = {
            "accuracy": preference.accuracy(margin_S, margin_S.new_zeros(())),
            "margin": margin_S,
            "log_ratio": log_ratio_S.detach(),
        }
        return GroupLoss(
            loss_G=segments.sums(loss_S, group_S, columns.num_groups),
            metrics={
                name: segments.means(values_S, group_S, columns.num_groups) for name, values_S in figures_S.items()
            },
        )

    def _signs(self, group: RolloutGroup) -> np.ndarray:
        return np.where(preference_of(group) > self.desirable_above, 1, -1).astype(np.float32)
