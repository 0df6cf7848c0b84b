"""The columns of a batch or its head, flat over all completion tokens, cut to a microbatch's tokens on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rlhf_cluster.algorithms import Algorithm, TokenColumns
from rlhf_cluster.data.packing import Microbatch
from rlhf_cluster.records import RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchColumns:
    """float32 [N] each, groups one after another in batch order: the order `Microbatch.origin_N` points into."""

    weights_N: torch.Tensor
    """Not yet divided by the algorithm's `normaliser`."""
    behaviour_logprobs_N: torch.Tensor
    reference_logprobs_N: torch.Tensor | None
    advantages_N: torch.Tensor

    @classmethod
    def of(cls, algorithm: Algorithm, groups: Sequence[RolloutGroup], *, device: torch.device) -> BatchColumns:
        scored = all(group.reference_logprobs is not None for group in groups)
        return cls(
            weights_N=_column(algorithm.token_weights(groups), device),
            behaviour_logprobs_N=_column([group.logprobs for group in groups], device),
            reference_logprobs_N=_column([group.reference_logprobs for group in groups], device) if scored else None,
            advantages_N=_column([group.advantages for group in groups], device),
        )

    def begins_with(self, head: BatchColumns) -> bool:
        """To the bit."""
        pairs = (
            (self.weights_N, head.weights_N),
            (self.behaviour_logprobs_N, head.behaviour_logprobs_N),
            (self.reference_logprobs_N, head.reference_logprobs_N),
            (self.advantages_N, head.advantages_N),
        )
        return all(
            whole is part if whole is None or part is None else torch.equal(whole[: len(part)], part)
            for whole, part in pairs
        )

    def weights_of(self, microbatch: Microbatch) -> torch.Tensor:
        return self.weights_N[self._tensor(microbatch.origin_N)]

    def tensors_of(self, microbatch: Microbatch, logprobs_N: torch.Tensor) -> TokenColumns:
        origin_N = self._tensor(microbatch.origin_N)
        reference = self.reference_logprobs_N
        return TokenColumns(
            logprobs_N=logprobs_N,
            behaviour_logprobs_N=self.behaviour_logprobs_N[origin_N],
            old_logprobs_N=None,
            reference_logprobs_N=None if reference is None else reference[origin_N],
            advantages_N=self.advantages_N[origin_N],
            sequence_N=self._tensor(microbatch.sequence_N),
            num_sequences=microbatch.num_sequences,
        )

    def _tensor(self, indices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(indices).to(self.weights_N.device)


def _column(parts: Sequence[np.ndarray | None], device: torch.device) -> torch.Tensor:
    filled = [part for part in parts if part is not None]
    assert len(filled) == len(parts), "a column is there for every group of a batch or for none"
    return torch.from_numpy(np.concatenate(filled).astype(np.float32)).to(device)
