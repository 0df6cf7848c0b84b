"""Policy gradients that compare the completions of one prompt with each other, and need no critic for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from rlhf_cluster.algorithms.policy_gradient import PolicyGradient, kl_of, rewards_of, sums_of
from rlhf_cluster.functional import advantages
from rlhf_cluster.records import RolloutGroup


class Siblings(PolicyGradient):
    """One advantage a completion, the same for each of its tokens. Subclasses say which `advantages` the rewards of a
    group give. KL in the reward is summed over a completion before."""

    min_completions: ClassVar[int] = 2
    by_group: ClassVar[bool] = True

    keep_zero_variance: bool = False
    """Keep groups whose rewards are all equal. They carry no advantage, so they are dropped and refilled."""

    def advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        """float64 [G] -> float64 [G], G >= 1."""
        raise NotImplementedError

    def drop_reason(self, group: RolloutGroup) -> str | None:
        """`too_few_valid` (a group needs two to compare) or `zero_variance` (before KL and length are subtracted)."""
        if group.num_completions < 2:
            return "too_few_valid"
        if not self.keep_zero_variance and np.ptp(rewards_of(group)) == 0:
            return "zero_variance"
        return None

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        return tuple(replace(group, advantages=self._per_token(group)) for group in groups)

    def _per_token(self, group: RolloutGroup) -> np.ndarray:
        rewards_G = self.shaped_rewards(group)
        if self.kl_coef > 0 and self.kl_in == "reward":
            rewards_G = rewards_G - self.kl_coef * sums_of(kl_of(group, estimator=self.kl_estimator), group)
        return group.per_token(self.advantages(rewards_G)).astype(np.float32)


class GroupRelative(Siblings):
    """Siblings compared as in GRPO: the reward less the group's mean, over its deviation."""

    scale_rewards: Literal["std", "none"] = "std"
    """`std` divides a group's centred rewards by their standard deviation, `none` does not (Dr. GRPO)."""

    def advantages(self, rewards_G: np.ndarray) -> np.ndarray:
        return advantages.group_relative(rewards_G, scale=self.scale_rewards)
