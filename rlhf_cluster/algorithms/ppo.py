"""PPO with a critic, as in RLHF: a reward at the end, a KL at every token, generalised advantages.

arXiv:1707.06347, for language models arXiv:1909.08593 and arXiv:2203.02155. The critic's values are a column of each
rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from rlhf_cluster.algorithms.base import TokenColumns, TokenLoss
from rlhf_cluster.algorithms.policy_gradient import PolicyGradient, kl_of, sums_of, untrained_too
from rlhf_cluster.functional import advantages, kl, returns, rewards, value
from rlhf_cluster.records import RolloutGroup


class PPO(PolicyGradient):
    """Per token: `-weight * min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + value_coef * (V - R)^2 / 2`.

    `A` is the generalised advantage of the token and `R` that plus the value the critic gave it before. Policy and
    critic are trained in the same updates.
    """

    model: ClassVar[Literal["policy", "policy_and_critic", "reward_model"]] = "policy_and_critic"

    type: Literal["ppo"] = "ppo"
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount of a token; 1 for tasks whose reward comes at the end."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Of generalised advantages: 0 trusts the critic's next value, 1 only what was paid in the end."""
    value_coef: float = Field(default=0.1, ge=0)
    """Weight of half the squared error of the critic."""
    value_clip: float | None = Field(default=0.2, gt=0)
    """How far a value may move from what it was when the batch was credited before its gradient stops, in units of the
    reward; None: as far as it likes."""
    kl_coef: float = Field(default=0.05, ge=0)
    """Weight of the KL from the reference policy. Above 0 a reference scorer is needed."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """`k1` suits `kl_in = "reward"`; `k2` and `k3` suit `kl_in = "loss"`. `functional/kl.py` tells them apart."""
    kl_in: Literal["loss", "reward"] = "reward"
    """Whether the KL is subtracted from the reward of each token, or is a term of the loss."""
    kl_target: float | None = Field(default=None, gt=0)
    """KL of a completion, in nats, towards which `kl_coef` is moved after every batch; None keeps it fixed."""
    kl_horizon: int = Field(default=10_000, gt=0)
    """In about how many completions that happens, `kl_target` given."""
    reward_clip: float | None = Field(default=None, gt=0)
    """Rewards of completions are cut to +- this before any KL; None: as they are."""
    whiten_rewards: bool = False
    """Divide the rewards of tokens, KL included, by their standard deviation in the batch; their mean stays."""
    whiten_advantages: bool = True
    """Shift and scale the advantages of the batch to mean 0 and standard deviation 1."""

    @model_validator(mode="after")
    def _a_target_has_a_coefficient(self) -> Self:
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError(
                f"kl_target = {self.kl_target} with kl_coef = 0: the coefficient is multiplied, so from 0 it never "
                "moves. Set kl_coef to where it shall begin, such as 0.05"
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {"value"}

    def drop_reason(self, group: RolloutGroup) -> str | None:
        return None if group.num_trained_tokens else "no_tokens"

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """Tokens that are not trained on are no actions: they have neither advantage, return nor KL."""
        rewards_by_group = [self._rewards(group) for group in groups]
        if self.whiten_rewards:
            rewards_by_group = advantages.whiten_together(rewards_by_group, shift_mean=False)
        estimates = [
            returns.gae(rewards_N, _values(group), group.trained_lengths, gamma=self.gamma, lam=self.lam)
            for group, rewards_N in zip(groups, rewards_by_group, strict=True)
        ]
        credited = [advantages_N for advantages_N, _ in estimates]
        if self.whiten_advantages:
            credited = advantages.whiten_together(credited)
        return tuple(
            replace(group, advantages=untrained_too(advantages_N, group), returns=untrained_too(returns_N, group))
            for group, advantages_N, (_, returns_N) in zip(groups, credited, estimates, strict=True)
        )

    def adapted(self, groups: Sequence[RolloutGroup]) -> Self:
        """With the `kl_coef` of the next batch, if there is a `kl_target`. The KL is k1 of the sampled tokens, whatever
        `kl_estimator` says: summed over a completion it is unbiased."""
        if self.kl_target is None:
            return self
        kl_by_group = [sums_of(kl_of(group, estimator="k1"), group) for group in groups]
        kl_S = np.concatenate(kl_by_group) if kl_by_group else np.zeros(0)
        if len(kl_S) == 0:
            return self
        num_steps = min(len(kl_S), self.kl_horizon)
        coef = kl.adapted_coef(self.kl_coef, float(kl_S.mean()), self.kl_target, num_steps, self.kl_horizon)
        return self.model_copy(update={"kl_coef": coef})

    def loss(self, columns: TokenColumns) -> TokenLoss:
        """Metrics: also `value_loss`, and `value_clip_fraction` where the values are clipped."""
        of_policy = super().loss(columns)
        values_N, old_N, returns_N = columns.values_N, columns.old_values_N, columns.returns_N
        assert values_N is not None
        assert old_N is not None
        assert returns_N is not None
        value_loss_N = value.value_loss(values_N, returns_N, old_values_N=old_N, clip=self.value_clip)
        metrics = {**of_policy.metrics, "value_loss": value_loss_N.detach()}
        if self.value_clip is not None:
            clipped_N = value.is_value_clipped(values_N.detach(), returns_N, old_values_N=old_N, clip=self.value_clip)
            metrics["value_clip_fraction"] = clipped_N.float()
        return TokenLoss(loss_N=of_policy.loss_N + self.value_coef * value_loss_N, metrics=metrics)

    def _rewards(self, group: RolloutGroup) -> np.ndarray:
        """float64 [trained tokens]."""
        rewards_G = self.shaped_rewards(group)
        if self.reward_clip is not None:
            rewards_G = rewards_G.clip(-self.reward_clip, self.reward_clip)
        subtracted = self.kl_coef > 0 and self.kl_in == "reward"
        kl_N = kl_of(group, estimator=self.kl_estimator) if subtracted else None
        return rewards.per_token(rewards_G, group.trained_lengths, kl_N=kl_N, kl_coef=self.kl_coef)


def _values(group: RolloutGroup) -> np.ndarray:
    """float64 [trained tokens]."""
    if group.values is None:
        raise AssertionError(f"request {group.request_id} has no values of the critic, which this algorithm needs")
    return group.trained(group.values).astype(np.float64)
