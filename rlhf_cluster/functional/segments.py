"""Sums over the completions of a flat token column, differentiable, without a loop and without a wait for the device.

`sequence_N` is int64 [N] and says which of `num_sequences` = S segments a value belongs to, 0..S-1, non-decreasing. A
segment without values has 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def sums(values_N: torch.Tensor, sequence_N: torch.Tensor, num_sequences: int) -> torch.Tensor:
    """The sum of each segment: float [S], in the dtype of `values_N`."""
    return values_N.new_zeros(num_sequences).index_add(0, sequence_N, values_N)


def means(values_N: torch.Tensor, sequence_N: torch.Tensor, num_sequences: int) -> torch.Tensor:
    """The mean of each segment over its own length: float [S]."""
    counts_S = sums(values_N.new_ones(len(values_N)), sequence_N, num_sequences)
    return sums(values_N, sequence_N, num_sequences) / counts_S.clamp(min=1)


def first(values_N: torch.Tensor, sequence_N: torch.Tensor, num_sequences: int) -> torch.Tensor:
    """The first value of each segment, which is any of them where all are alike: float [S]."""
    return sums(values_N.where(starts(sequence_N), 0), sequence_N, num_sequences)


def starts(sequence_N: torch.Tensor) -> torch.Tensor:
    """Where a segment begins: bool [N]."""
    return sequence_N.diff(prepend=sequence_N.new_full((1,), -1)) != 0
