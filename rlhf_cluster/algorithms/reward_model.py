"""A reward model: by maximum likelihood of Bradley-Terry the preferred of two completions scores higher.

InstructGPT, arXiv:2203.02155, section 3.5, with the margin of Llama 2 (arXiv:2307.09288), ties as soft labels, and
scores held around 0 (arXiv:2312.09244).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from rlhf_cluster.algorithms.base import Algorithm, GroupLoss, ScoreColumns
from rlhf_cluster.algorithms.pairs import preference_of
from rlhf_cluster.functional import preference, segments
from rlhf_cluster.records import RolloutGroup


class RewardModel(Algorithm):
    """Per group: the mean over its pairs of `-log sigmoid(s_chosen - s_rejected - margin)` and the centring penalty.

    A group of K completions has K (K - 1) / 2 pairs, each group weighs alike.
    """

    min_completions: ClassVar[int] = 2
    by_group: ClassVar[bool] = True
    learns_from: ClassVar[tuple[Literal["rollouts", "data"], ...]] = ("data", "rollouts")
    whole_groups: ClassVar[bool] = True
    model: ClassVar[Literal["policy", "policy_and_critic", "reward_model"]] = "reward_model"

    type: Literal["reward_model"] = "reward_model"
    margin_coef: float = Field(default=0.0, ge=0)
    """The margin is this times the difference of the two rewards in the data; 0 has none."""
    centering_coef: float = Field(default=0.01, ge=0)
    """Weight of `(s_chosen + s_rejected)^2`, which holds scores around 0; 0 leaves them to drift."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The probability that a label is wrong."""
    keep_ties: bool = True
    """Learn from pairs of equal rewards, as a label that is wrong half of the time: it pulls their scores together."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward"})

    def drop_reason(self, group: RolloutGroup) -> str | None:
        """`too_few_valid`, or `zero_variance` where all are equal and ties are not learned from."""
        if group.num_completions < 2:
            return "too_few_valid"
        return "zero_variance" if not self.keep_ties and np.ptp(preference_of(group)) == 0 else None

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """`loss` reads rewards and no advantages; each token is given the reward of its completion."""
        return tuple(replace(group, advantages=group.per_token(preference_of(group))) for group in groups)

    def normaliser(self, groups: Sequence[RolloutGroup]) -> float:
        return float(max(len(groups), 1))

    def loss(self, columns: ScoreColumns) -> GroupLoss:
        """Metrics, averaged over the pairs of a group: `accuracy` (1/2 in a tie), `margin` (score of the chosen minus
        that of the rejected), `chosen_reward` and `rejected_reward` (their scores)."""
        first_P, second_P = preference.pairs(columns.rewards_S, columns.group_S)
        difference_P = columns.rewards_S[first_P] - columns.rewards_S[second_P]
        if not self.keep_ties:
            decided_P = difference_P > 0
            first_P, second_P, difference_P = first_P[decided_P], second_P[decided_P], difference_P[decided_P]
        tied_P = difference_P == 0
        chosen_P, rejected_P = columns.scores_S[first_P], columns.scores_S[second_P]
        loss_P = preference.bradley_terry_loss(
            chosen_P,
            rejected_P,
            margin_G=self.margin_coef * difference_P,
            label_smoothing=self.label_smoothing,
            tied_G=tied_P,
        ) + preference.centering_penalty(chosen_P, rejected_P, coef=self.centering_coef)
        figures_P = {
            "accuracy": preference.accuracy(chosen_P, rejected_P).where(~tied_P, 0.5),
            "margin": (chosen_P - rejected_P).detach(),
            "chosen_reward": chosen_P.detach(),
            "rejected_reward": rejected_P.detach(),
        }
        group_P = columns.group_S[first_P]
        return GroupLoss(
            loss_G=segments.means(loss_P, group_P, columns.num_groups),
            metrics={
                name: segments.means(values_P, group_P, columns.num_groups) for name, values_P in figures_P.items()
            },
        )
