"""What an algorithm is: a frozen value with hyper-parameters, `needs`, and pure `credit` and `loss`.

It travels to the learner as an argument. The driver and the learner never look at its name: they fill the columns it
`needs`, call `drop_reason`, `credit`, `token_weights` and `normaliser` on numpy, and `loss` on the tensors of one
microbatch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.settings import Settings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenColumns:
    """The trained tokens of one microbatch, flat: N tokens of S completions of G groups; a completion is never divided,
    nor is a group where the algorithm compares its `whole_groups`."""

    logprobs_N: torch.Tensor
    """float32, under the policy being trained; has a gradient, as have `entropy_N` and `values_N`."""
    behaviour_logprobs_N: torch.Tensor
    """float32, under the engine that sampled the tokens."""
    old_logprobs_N: torch.Tensor | None
    """float32, under the policy as it was when the step began; None when this is the step's only update, where
    it equals `logprobs_N.detach()`."""
    reference_logprobs_N: torch.Tensor | None
    """float32, under the frozen reference; None unless the algorithm needs it."""
    advantages_N: torch.Tensor
    """float32."""
    sequence_N: torch.Tensor
    """int64, which completion of the microbatch a token belongs to, 0..S-1, non-decreasing."""
    num_sequences: int
    """S."""
    group_S: torch.Tensor | None = None
    """int64, which group of the microbatch a completion belongs to, 0..G-1, non-decreasing."""
    num_groups: int = 0
    """G."""
    entropy_N: torch.Tensor | None = None
    """float32, of the policy's distribution at each token; None unless among the `outputs`."""
    values_N: torch.Tensor | None = None
    """float32, what the critic says now; None unless among the `outputs`."""
    old_values_N: torch.Tensor | None = None
    """float32, what it said when the batch was credited."""
    returns_N: torch.Tensor | None = None
    """float32, what it is trained towards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreColumns:
    """The completions of one microbatch under a reward model: S completions of G groups; no group is divided."""

    scores_S: torch.Tensor
    """float32, of each completion's last token; has a gradient."""
    rewards_S: torch.Tensor
    """float32, what people or a rubric say of each: in a pair the preferred one has more, in a tie both the same."""
    group_S: torch.Tensor
    """int64, which group a completion belongs to, 0..G-1, non-decreasing."""
    num_groups: int
    """G."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """Per-token loss, not yet weighted, and per-token figures that the learner averages over the whole batch."""

    loss_N: torch.Tensor
    metrics: Mapping[str, torch.Tensor]
    """By short name (`clip_fraction`, `kl`, `mismatch_kl`), each detached [N]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLoss:
    """One loss a group, of which the step's is the sum over its `normaliser`, and figures averaged over groups."""

    loss_G: torch.Tensor
    metrics: Mapping[str, torch.Tensor]
    """By short name (`accuracy`, `margin`), each detached [G]."""


class Algorithm(Settings):
    """Base of algorithms. Subclasses add `type: Literal["..."]` and their hyper-parameters."""

    min_completions: ClassVar[int] = 1
    """Completions of one prompt that it needs at least: 2 where siblings are compared."""
    by_group: ClassVar[bool] = False
    """`credit` and `token_weights` of a group depend on that group alone, so that the groups at the head of a batch can
    be learned while others are still generated. Claiming it wrongly costs time and never changes a step."""
    learns_from: ClassVar[tuple[Literal["rollouts", "data"], ...]] = ("rollouts",)
    """Whether the completions are generated or recorded in `data.train`; the first where the job does not say."""
    whole_groups: ClassVar[bool] = False
    """`loss` compares the completions of a group, so a microbatch has all of them."""
    model: ClassVar[Literal["policy", "policy_and_critic", "reward_model"]] = "policy"
    """What is trained: a language model, one with a critic beside it, or a sequence classifier with one output."""

    @property
    def needs(self) -> frozenset[str]:
        """Of `reward`, `reference` and `value`: which columns the driver must fill before `credit`."""
        raise NotImplementedError

    @property
    def wants_entropy(self) -> bool:
        """Whether `loss` reads `entropy_N`; it costs a pass over the vocabulary."""
        return False

    @property
    def updates(self) -> tuple[int, int]:
        """(epochs over a batch, minibatches an epoch): an optimizer update each. More than one make a step's updates
        compare with the policy that it began with, `old_logprobs_N`."""
        return 1, 1

    def drop_reason(self, group: RolloutGroup) -> str | None:
        """Why a scored group (invalid completions already removed) teaches nothing, or None to keep it."""
        raise NotImplementedError

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """Fill `advantages` (float32 [N]) of every group, and `returns` where there is a critic."""
        raise NotImplementedError

    def adapted(self, groups: Sequence[RolloutGroup]) -> Self:
        """The algorithm for the next batch, after the credited `groups` of this one: where a coefficient follows what
        is observed, another value. A pure function, so that a resumed job has the same."""
        return self

    def token_weights(self, groups: Sequence[RolloutGroup]) -> list[np.ndarray]:
        """One float32 [trained tokens] a group. The step's loss is the sum of weight times token loss over the whole
        batch, divided by `normaliser`. Not asked where the loss is a `GroupLoss`.

        All of the normalisation is in those two, so neither the microbatch size nor the number of ranks can change it.
        """
        raise NotImplementedError

    def normaliser(self, groups: Sequence[RolloutGroup]) -> float:
        """One number of the whole batch, above 0; 1 when `token_weights` leaves nothing to divide by."""
        return 1.0

    def loss(self, columns: Any) -> TokenLoss | GroupLoss:
        """Of one microbatch, whose columns are `TokenColumns`, or `ScoreColumns` where a reward model is trained. Pure:
        no device, no process group, no IO."""
        raise NotImplementedError
