"""What an algorithm is: a frozen value with hyper-parameters, `needs`, and pure `credit` and `loss`.

It travels to the learner as an argument. The driver and the learner never look at its name: they fill the columns it
`needs`, call `drop_reason`, `credit`, `token_weights` and `normaliser` on numpy, and `loss` on the tensors of one
microbatch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.settings import Settings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenColumns:
    """The completion tokens of one microbatch, flat: N tokens of S completions; a completion is never divided."""

    logprobs_N: torch.Tensor
    """float32, under the policy being trained; the only column with a gradient."""
    behaviour_logprobs_N: torch.Tensor
    """float32, under the engine that sampled the tokens."""
    old_logprobs_N: torch.Tensor | None
    """float32, under the policy as it was when the step began; None when this is the step's first update, where
    it equals `logprobs_N.detach()`."""
    reference_logprobs_N: torch.Tensor | None
    """float32, under the frozen reference; None unless the algorithm needs it."""
    advantages_N: torch.Tensor
    """float32."""
    sequence_N: torch.Tensor
    """int64, which completion of the microbatch a token belongs to, 0..S-1, non-decreasing."""
    num_sequences: int
    """S."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLoss:
    """Per-token loss, not yet weighted, and per-token figures that the learner averages over the whole batch."""

    loss_N: torch.Tensor
    metrics: Mapping[str, torch.Tensor]
    """By short name (`clip_fraction`, `kl`, `mismatch_kl`), each detached [N]."""


class Algorithm(Settings):
    """Base of algorithms. Subclasses add `type: Literal["..."]` and their hyper-parameters."""

    min_completions: ClassVar[int] = 1
    """Completions of one prompt that it needs at least: 2 where siblings are compared."""
    by_group: ClassVar[bool] = False
    """`credit` and `token_weights` of a group depend on that group alone, so that the groups at the head of a batch can
    be learned while others are still generated. Claiming it wrongly costs time and never changes a step."""

    @property
    def needs(self) -> frozenset[str]:
        """Of `reward` and `reference`: which columns the driver must fill before `credit`."""
        raise NotImplementedError

    def drop_reason(self, group: RolloutGroup) -> str | None:
        """Why a scored group (invalid completions already removed) teaches nothing, or None to keep it."""
        raise NotImplementedError

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """Fill `advantages` (float32 [N]) of every group."""
        raise NotImplementedError

    def token_weights(self, groups: Sequence[RolloutGroup]) -> list[np.ndarray]:
        """One float32 [N] a group. The step's loss is the sum of weight times token loss over the whole batch, divided
        by `normaliser`.

        All of the normalisation is in those two, so neither the microbatch size nor the number of ranks can change it.
        """
        raise NotImplementedError

    def normaliser(self, groups: Sequence[RolloutGroup]) -> float:
        """One number of the whole batch, above 0; 1 when `token_weights` leaves nothing to divide by."""
        return 1.0

    def loss(self, columns: TokenColumns) -> TokenLoss:
        """Per-token loss of one microbatch. Pure: no device, no process group, no IO."""
        raise NotImplementedError
