"""From per-token losses to one number: the weight of each token, over the whole batch of a step.

The loss of a step is the sum of weight times token loss. Weights come from the lengths of all completions of the step,
never of one microbatch, so neither the microbatch size nor the number of ranks nor the grouping changes the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

Aggregation = Literal["token", "sequence", "constant"]


def token_weights(
    lengths: Sequence[np.ndarray], *, aggregation: Aggregation, constant_length: int | None = None
) -> list[np.ndarray]:
    """Weights of every token for one of three means; see Dr. GRPO (arXiv:2503.20783, section 3) on how they differ.

    `lengths` is one int [G] a group; the result is one float32 [N] a group, N = sum of its lengths.

    - `token`: 1 / tokens of the batch, every token alike (DAPO, arXiv:2503.14476, section 3.3). Sums to 1.
    - `sequence`: mean over the tokens of a completion, then over completions (GRPO, arXiv:2402.03300): a token of a
      long completion counts less. Completions without tokens are not counted. Sums to 1.
    - `constant`: 1 / (completions * `constant_length`) (Dr. GRPO), with `constant_length` the largest length allowed:
      every token alike, and the same in every step, whatever the lengths. Sums to at most 1.
    """
    if not lengths:
        return []
    lengths_S = np.concatenate([np.asarray(group, dtype=np.int64) for group in lengths])
    weights_S = _weight_per_token(lengths_S, aggregation=aggregation, constant_length=constant_length)
    ends = np.cumsum([len(group) for group in lengths])[:-1]
    return [
        np.repeat(weights, group).astype(np.float32)
        for weights, group in zip(np.split(weights_S, ends), lengths, strict=True)
    ]


def _weight_per_token(lengths_S: np.ndarray, *, aggregation: Aggregation, constant_length: int | None) -> np.ndarray:
    """float64 [S]: what each token of a completion weighs."""
    if aggregation == "token":
        return np.full(len(lengths_S), 1.0 / max(int(lengths_S.sum()), 1))
    if aggregation == "sequence":
        return 1.0 / (max(np.count_nonzero(lengths_S), 1) * np.maximum(lengths_S, 1))
    if aggregation == "constant":
        if constant_length is None:
            raise ValueError('aggregation "constant" divides by a fixed length: pass constant_length')
        return np.full(len(lengths_S), 1.0 / (len(lengths_S) * constant_length))
    raise ValueError(f"aggregation {aggregation!r}: choose token, sequence or constant")
