"""GRPO: advantages from the siblings of a group, a clipped surrogate, an optional KL term, no critic.

DeepSeekMath, arXiv:2402.03300. The fields select its variants: DAPO (`clip_high` above `clip_low`, aggregation
`token`), Dr. GRPO (`scale_rewards = "none"`, aggregation `constant`), dual clipping, and truncated importance sampling
against the mismatch between rollout engine and learner, on by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from rlhf_cluster.algorithms.base import Algorithm, TokenColumns, TokenLoss
from rlhf_cluster.functional import advantages, clipping, importance, kl, reduce
from rlhf_cluster.records import RolloutGroup


class GRPO(Algorithm):
    """Per token: `-weight * min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl_coef * kl`.

    `r` is the policy's probability over that of the policy at the start of the step, `weight` the truncated importance
    weight of the latter over the engine's. The KL term is not weighted.
    """

    min_completions: ClassVar[int] = 2
    by_group: ClassVar[bool] = True

    type: Literal["grpo"] = "grpo"
    scale_rewards: Literal["std", "none"] = "std"
    """`std` divides a group's centred rewards by their standard deviation, `none` does not (Dr. GRPO)."""
    clip_low: float = Field(default=0.2, ge=0, le=1)
    """The ratio is clipped below at 1 - `clip_low`."""
    clip_high: float = Field(default=0.2, ge=0)
    """The ratio is clipped above at 1 + `clip_high`; DAPO uses 0.28."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Bound on the loss of a negative advantage, in units of it; None leaves it unbounded, as PPO does."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL from the reference policy. Above 0 a reference scorer is needed."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """`k1` suits `kl_in = "reward"`; `k2` and `k3` suit `kl_in = "loss"`. `functional/kl.py` tells them apart."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Whether the KL is a term of the loss, per token, or is subtracted from a completion's reward, summed."""
    aggregation: reduce.Aggregation = "token"
    """Mean over `token`s of the batch (DAPO), per `sequence` first (GRPO paper), or over a `constant` length."""
    constant_length: int | None = Field(default=None, gt=0)
    """What aggregation `constant` divides by: normally the `max_new_tokens` of the rollouts."""
    tis_cap: float | None = Field(default=2.0, gt=0)
    """Cap of the truncated importance weight of policy over engine; None turns the correction off."""
    keep_zero_variance: bool = False
    """Keep groups whose rewards are all equal. They carry no advantage, so they are dropped and refilled."""

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if (self.aggregation == "constant") != (self.constant_length is not None):
            raise ValueError(
                f"aggregation = {self.aggregation!r} with constant_length = {self.constant_length}: "
                'aggregation "constant" divides by constant_length, the others do not. '
                "Set both (constant_length to the rollouts' max_new_tokens), or neither"
            )
        if self.kl_coef > 0 and self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                'kl_estimator = "k1" with kl_in = "loss": the gradient of k1 is zero on average, so it holds '
                'the policy to nothing. Set kl_estimator = "k3" or "k2", or kl_in = "reward"'
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward", "reference"} if self.kl_coef > 0 else {"reward"})

    def drop_reason(self, group: RolloutGroup) -> str | None:
        """`too_few_valid` (a group needs two to compare) or `zero_variance` (before any KL is subtracted)."""
        if group.num_completions < 2:
            return "too_few_valid"
        if not self.keep_zero_variance and np.ptp(_rewards(group)) == 0:
            return "zero_variance"
        return None

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        return tuple(replace(group, advantages=self._advantages(group)) for group in groups)

    def token_weights(self, groups: Sequence[RolloutGroup]) -> list[np.ndarray]:
        return reduce.relative_weights([group.trained_lengths for group in groups], aggregation=self.aggregation)

    def normaliser(self, groups: Sequence[RolloutGroup]) -> float:
        return reduce.normaliser(
            [group.trained_lengths for group in groups],
            aggregation=self.aggregation,
            constant_length=self.constant_length,
        )

    def loss(self, columns: TokenColumns) -> TokenLoss:
        """Metrics: `ratio`, `clip_fraction`, `mismatch_kl`, `mismatch_gap`, `tis_weight` if capped, `kl` if referenced.

        The two mismatches are between the engine that sampled and the policy at the start of the step: its staleness
        and its numerics, before this step has changed anything.
        """
        old_N = columns.logprobs_N.detach() if columns.old_logprobs_N is None else columns.old_logprobs_N
        ratio_N = importance.ratio(columns.logprobs_N, old_N)
        loss_N = clipping.surrogate_loss(
            ratio_N, columns.advantages_N, low=self.clip_low, high=self.clip_high, dual=self.dual_clip
        )
        clipped_N = clipping.is_clipped(ratio_N, columns.advantages_N, low=self.clip_low, high=self.clip_high)
        metrics = {
            "ratio": ratio_N.detach(),
            "clip_fraction": clipped_N.float(),
            "mismatch_kl": importance.mismatch_kl(old_N, columns.behaviour_logprobs_N),
            "mismatch_gap": importance.mismatch_gap(old_N, columns.behaviour_logprobs_N),
        }
        if self.tis_cap is not None:
            weight_N = importance.truncated_weight(old_N, columns.behaviour_logprobs_N, cap=self.tis_cap)
            loss_N = weight_N * loss_N
            metrics["tis_weight"] = weight_N
        if columns.reference_logprobs_N is not None:
            kl_N = kl.estimate(columns.logprobs_N, columns.reference_logprobs_N, estimator=self.kl_estimator)
            metrics["kl"] = kl_N.detach()
            if self.kl_in == "loss":
                loss_N = loss_N + self.kl_coef * kl_N
        return TokenLoss(loss_N=loss_N, metrics=metrics)

    def _advantages(self, group: RolloutGroup) -> np.ndarray:
        rewards_G = _rewards(group)
        if self.kl_coef > 0 and self.kl_in == "reward":
            rewards_G = rewards_G - self.kl_coef * self._kl_per_completion(group)
        advantages_G = advantages.group_relative(rewards_G, scale=self.scale_rewards)
        return group.per_token(advantages_G).astype(np.float32)

    def _kl_per_completion(self, group: RolloutGroup) -> np.ndarray:
        """float64 [G], summed over tokens, of the policy that sampled them: the behaviour log-probabilities."""
        if group.reference_logprobs is None:
            raise AssertionError(f"request {group.request_id} has no reference logprobs, which this algorithm needs")
        kl_N = kl.estimate(group.logprobs, group.reference_logprobs, estimator=self.kl_estimator)
        completion_N = group.per_token(np.arange(group.num_completions))
        return np.bincount(completion_N, weights=kl_N, minlength=group.num_completions)


def _rewards(group: RolloutGroup) -> np.ndarray:
    """float64 [G]: in float32, sums over large groups would lose what the baseline has to keep."""
    if group.rewards is None or not np.isfinite(group.rewards).all():
        raise AssertionError(
            f"request {group.request_id}: rewards {group.rewards}, expected a number for each completion"
        )
    return group.rewards.astype(np.float64)
