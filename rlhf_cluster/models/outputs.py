"""What a forward pass of training gives: one record for policies, critics and reward models."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class Outputs(NamedTuple):
    """A tuple, which DistributedDataParallel looks into; what was not asked for or is not there is None."""

    logprobs_N: torch.Tensor | None = None
    """float32, log p(target_n | its prefix) at the sampling temperature."""
    entropy_N: torch.Tensor | None = None
    """float32, in nats, of the distribution that target_n is drawn from."""
    values_N: torch.Tensor | None = None
    """float32, what the critic expects at the state that target_n is chosen in."""
    scores_S: torch.Tensor | None = None
    """float32, of each completion, read at its last token."""
