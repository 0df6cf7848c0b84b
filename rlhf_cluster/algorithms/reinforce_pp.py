"""REINFORCE++: no critic; each token is credited with the rewards from it on, whitened over the whole batch.

arXiv:2501.03262. With `baseline = "group"` the reward is first centred among its siblings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from rlhf_cluster.algorithms.policy_gradient import PolicyGradient, kl_of, untrained_too
from rlhf_cluster.functional import advantages, returns, rewards
from rlhf_cluster.records import RolloutGroup


class ReinforcePP(PolicyGradient):
    """Per token: `-weight * min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)`.

    `A` is the completion's reward, less the KL of the token and all after it if `kl_in` is the reward; of that the mean
    over all tokens of the batch is subtracted, and it is divided by their population standard deviation.
    """

    type: Literal["reinforce_pp"] = "reinforce_pp"
    baseline: Literal["none", "group"] = "none"
    """`group` subtracts the mean of the siblings first (REINFORCE++-baseline); the paper then has the KL in the loss,
    as `k2`. `none` compares completions of all prompts, and needs no siblings."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """`k1` suits `kl_in = "reward"`; `k2` and `k3` suit `kl_in = "loss"`. `functional/kl.py` tells them apart."""
    kl_in: Literal["loss", "reward"] = "reward"
    """Whether the KL is subtracted from the rewards of tokens, or is a term of the loss."""

    @property
    def min_completions(self) -> int:  # ty: ignore[incompatible-property-override]: read of values, never set
        return 2 if self.baseline == "group" else 1

    def drop_reason(self, group: RolloutGroup) -> str | None:
        """`too_few_valid` or `no_tokens`. Equal rewards teach too: they are above or below those of other prompts."""
        if group.num_completions < self.min_completions:
            return "too_few_valid"
        return None if group.num_trained_tokens else "no_tokens"

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        whitened = advantages.whiten_together([self._returns(group) for group in groups], ddof=0)
        return tuple(
            replace(group, advantages=untrained_too(values_N, group))
            for group, values_N in zip(groups, whitened, strict=True)
        )

    def _returns(self, group: RolloutGroup) -> np.ndarray:
        """float64 [trained tokens]."""
        rewards_G = self.shaped_rewards(group)
        if self.baseline == "group":
            rewards_G = advantages.group_relative(rewards_G, scale="none")
        subtracted = self.kl_coef > 0 and self.kl_in == "reward"
        kl_N = kl_of(group, estimator=self.kl_estimator) if subtracted else None
        rewards_N = rewards.per_token(rewards_G, group.trained_lengths, kl_N=kl_N, kl_coef=self.kl_coef)
        return returns.discounted(rewards_N, group.trained_lengths)
