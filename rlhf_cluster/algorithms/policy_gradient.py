"""What the algorithms that learn from sampled completions share: the loss of a token, its weight, and shaped rewards.

One of them says in its file what a completion's advantage is, and where it departs from the clipped surrogate of PPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from rlhf_cluster.algorithms.base import Algorithm, TokenColumns, TokenLoss
from rlhf_cluster.functional import clipping, importance, kl, reduce, rewards
from rlhf_cluster.records import RolloutGroup

if TYPE_CHECKING:
    import torch


class PolicyGradient(Algorithm):
    """Per token: `weight * surrogate + kl_coef * kl - entropy_coef * entropy`.

    The surrogate compares the policy with the one at the start of the step, `weight` the latter with the engine. The
    two other terms are not weighted.
    """

    clip_low: float = Field(default=0.2, ge=0, le=1)
    """The ratio is clipped below at 1 - `clip_low`."""
    clip_high: float = Field(default=0.2, ge=0)
    """The ratio is clipped above at 1 + `clip_high`."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Bound on the loss of a negative advantage, in units of it; None leaves it unbounded, as PPO does."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL from the reference policy. Above 0 a reference scorer is needed."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """`k1` suits `kl_in = "reward"`; `k2` and `k3` suit `kl_in = "loss"`. `functional/kl.py` tells them apart."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Whether the KL is a term of the loss, per token, or is subtracted from the reward."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of the entropy of the policy's distribution, which is raised; it costs a pass over the vocabulary."""
    aggregation: reduce.Aggregation = "token"
    """Mean over `token`s of the batch (DAPO), per `sequence` first (GRPO paper), or over a `constant` length."""
    constant_length: int | None = Field(default=None, gt=0)
    """What aggregation `constant` divides by: normally the `max_new_tokens` of the rollouts."""
    importance: Literal["token", "sequence", "geometric", "masked", "none"] = "token"
    """Weight of policy over engine: of each `token`, of the whole `sequence` (the product of its tokens') or their
    `geometric` mean, truncated at `tis_cap`; or of each token, 0 outside `mask_low` and `mask_high` (`masked`)."""
    tis_cap: float | None = Field(default=2.0, gt=0)
    """Cap of the truncated importance weight of policy over engine; None turns the correction off."""
    mask_low: float = Field(default=0.5, ge=0, le=1)
    """With `importance = "masked"`, the least weight of a token that is learned."""
    mask_high: float = Field(default=5.0, ge=1)
    """With `importance = "masked"`, the greatest."""
    overlong_length: int | None = Field(default=None, gt=0)
    """From this length on a completion's reward is 1 less; normally the `max_new_tokens` of the rollouts."""
    overlong_cache: int | None = Field(default=None, gt=0)
    """Over how many tokens before `overlong_length` that penalty grows from 0 (DAPO's soft overlong punishment)."""
    num_epochs: int = Field(default=1, gt=0)
    """Times that a batch is learned from."""
    num_minibatches: int = Field(default=1, gt=0)
    """Optimizer updates in each of them."""

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
        if (self.overlong_length or 0) < (self.overlong_cache or 0) or (
            self.overlong_length is not None and self.overlong_cache is None
        ):
            raise ValueError(
                f"overlong_length = {self.overlong_length} with overlong_cache = {self.overlong_cache}: set both, "
                "overlong_length to the rollouts' max_new_tokens and overlong_cache to a part of it, or neither"
            )
        return self

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward", "reference"} if self.kl_coef > 0 else {"reward"})

    @property
    def wants_entropy(self) -> bool:
        return self.entropy_coef > 0

    @property
    def updates(self) -> tuple[int, int]:
        return self.num_epochs, self.num_minibatches

    def token_weights(self, groups: Sequence[RolloutGroup]) -> list[np.ndarray]:
        return reduce.relative_weights([group.trained_lengths for group in groups], aggregation=self.aggregation)

    def normaliser(self, groups: Sequence[RolloutGroup]) -> float:
        return reduce.normaliser(
            [group.trained_lengths for group in groups],
            aggregation=self.aggregation,
            constant_length=self.constant_length,
        )

    def loss(self, columns: TokenColumns) -> TokenLoss:
        """Metrics: those of `surrogate`, `mismatch_kl`, `mismatch_gap`, `tis_weight` if corrected, `kl` if referenced.

        The two mismatches are between the engine that sampled and the policy at the start of the step: its staleness
        and its numerics, before this step has changed anything.
        """
        old_N = columns.logprobs_N.detach() if columns.old_logprobs_N is None else columns.old_logprobs_N
        surrogate = self.surrogate(columns, old_N)
        loss_N = surrogate.loss_N
        metrics = {
            **surrogate.metrics,
            "mismatch_kl": importance.mismatch_kl(old_N, columns.behaviour_logprobs_N),
            "mismatch_gap": importance.mismatch_gap(old_N, columns.behaviour_logprobs_N),
        }
        weight_N = self._importance_weight(columns, old_N)
        if weight_N is not None:
            loss_N = weight_N * loss_N
            metrics["tis_weight"] = weight_N
        if columns.reference_logprobs_N is not None:
            kl_N = kl.estimate(columns.logprobs_N, columns.reference_logprobs_N, estimator=self.kl_estimator)
            metrics["kl"] = kl_N.detach()
            if self.kl_in == "loss":
                loss_N = loss_N + self.kl_coef * kl_N
        if self.wants_entropy:
            assert columns.entropy_N is not None, "the learner gives the entropy to an algorithm that wants it"
            loss_N = loss_N - self.entropy_coef * columns.entropy_N
        return TokenLoss(loss_N=loss_N, metrics=metrics)

    def surrogate(self, columns: TokenColumns, old_N: torch.Tensor) -> TokenLoss:
        """`-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)`, r a token's ratio. Metrics: `ratio`, `clip_fraction`."""
        return self._clipped(importance.ratio(columns.logprobs_N, old_N), columns.advantages_N)

    def shaped_rewards(self, group: RolloutGroup) -> np.ndarray:
        """float64 [G]: in float32, sums over large groups would lose what a baseline has to keep. Overlong completions
        have been paid less; no KL is subtracted yet."""
        shaped_G = rewards_of(group)
        if self.overlong_length is None or self.overlong_cache is None:
            return shaped_G
        return shaped_G + rewards.soft_overlong_penalty(
            group.lengths, max_length=self.overlong_length, cache=self.overlong_cache
        )

    def _clipped(self, ratio_N: torch.Tensor, advantages_N: torch.Tensor) -> TokenLoss:
        bounds = {"low": self.clip_low, "high": self.clip_high}
        loss_N = clipping.surrogate_loss(ratio_N, advantages_N, dual=self.dual_clip, **bounds)
        clipped_N = clipping.is_clipped(ratio_N, advantages_N, **bounds)
        return TokenLoss(loss_N=loss_N, metrics={"ratio": ratio_N.detach(), "clip_fraction": clipped_N.float()})

    def _importance_weight(self, columns: TokenColumns, old_N: torch.Tensor) -> torch.Tensor | None:
        behaviour_N = columns.behaviour_logprobs_N
        if self.importance == "none" or self.tis_cap is None:
            return None
        if self.importance == "masked":
            return importance.masked_weight(old_N, behaviour_N, low=self.mask_low, high=self.mask_high)
        if self.importance == "token":
            return importance.truncated_weight(old_N, behaviour_N, cap=self.tis_cap)
        return importance.sequence_weight(
            old_N,
            behaviour_N,
            columns.sequence_N,
            num_sequences=columns.num_sequences,
            mean="product" if self.importance == "sequence" else "geometric",
            cap=self.tis_cap,
        )


def rewards_of(group: RolloutGroup) -> np.ndarray:
    """float64 [G]. A missing reward is our bug: an invalid completion is taken out before."""
    if group.rewards is None or not np.isfinite(group.rewards).all():
        raise AssertionError(
            f"request {group.request_id}: rewards {group.rewards}, expected a number for each completion"
        )
    return group.rewards.astype(np.float64)


def kl_of(group: RolloutGroup, *, estimator: kl.Estimator) -> np.ndarray:
    """float [trained tokens], of the policy that sampled them: the behaviour log-probabilities."""
    if group.reference_logprobs is None:
        raise AssertionError(f"request {group.request_id} has no reference logprobs, which this algorithm needs")
    return group.trained(kl.estimate(group.logprobs, group.reference_logprobs, estimator=estimator))


def sums_of(values_N: np.ndarray, group: RolloutGroup) -> np.ndarray:
    """float64 [G], a column of the trained tokens summed over each completion."""
    completion_N = np.repeat(np.arange(group.num_completions), group.trained_lengths)
    return np.bincount(completion_N, weights=values_N, minlength=group.num_completions)


def untrained_too(values_N: np.ndarray, group: RolloutGroup) -> np.ndarray:
    """float32 [N], a column of the trained tokens with 0 at the tokens that are not trained on."""
    if group.loss_mask is None:
        return values_N.astype(np.float32)
    all_N = np.zeros(group.num_tokens, dtype=np.float32)
    all_N[group.loss_mask] = values_N
    return all_N
