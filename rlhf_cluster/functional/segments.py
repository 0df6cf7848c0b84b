"""Sums and means over the sequences of flat token columns, and what stands at their first token.

`sequence_N` is int64 [N], the sequence 0..S-1 that a token belongs to, non-decreasing; `num_sequences` is S. The same
functions take completions to groups: `[S]` columns with `group_S` and `num_groups`. Tensors in, tensors out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def sums(values_N: torch.Tensor, sequence_N: torch.Tensor, *, num_sequences: int) -> torch.Tensor:
    """Sum over the tokens of each sequence: [N] -> [S], with gradient. 0 for a sequence without tokens."""
    return values_N.new_zeros(num_sequences).index_add(0, sequence_N, values_N)


def means(values_N: torch.Tensor, sequence_N: torch.Tensor, *, num_sequences: int) -> torch.Tensor:
    """Mean over the tokens of each sequence: [N] -> [S], with gradient. 0 for a sequence without tokens."""
    lengths_S = sequence_N.bincount(minlength=num_sequences).clamp(min=1)
    return sums(values_N, sequence_N, num_sequences=num_sequences) / lengths_S


def first(values_N: torch.Tensor, sequence_N: torch.Tensor, *, num_sequences: int) -> torch.Tensor:
    """The value at the first token of each sequence: [N] -> [S], with gradient. 0 for a sequence without tokens.

    For a column that has one value a sequence, repeated over its tokens, this is that value, without rounding.
    """
    lengths_S = sequence_N.bincount(minlength=num_sequences)
    starts_S = lengths_S.cumsum(0) - lengths_S
    filled_S = lengths_S > 0
    firsts_S = values_N.new_zeros(num_sequences)
    return firsts_S.masked_scatter(filled_S, values_N[starts_S[filled_S]])
