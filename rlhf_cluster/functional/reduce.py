"""From per-token losses to one number: the weight of each token, over the whole batch of a step.

The loss of a step is the sum of weight times token loss. Weights come from the lengths of all completions of the step,
never of one microbatch, so neither the microbatch size nor the number of ranks nor the grouping changes the gradient.
They are a part that each group knows alone, over one number of the whole batch.
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
    divisor = normaliser(lengths, aggregation=aggregation, constant_length=constant_length)
    return [(weights / divisor).astype(np.float32) for weights in _relative(lengths, aggregation)]


def relative_weights(lengths: Sequence[np.ndarray], *, aggregation: Aggregation) -> list[np.ndarray]:
    """`token_weights` times `normaliser`: of each group without knowing the others. One float32 [N] a group.

    1 for `token` and `constant`, 1 / length of the completion for `sequence`. A gradient may be summed with these
    before the batch is complete and divided afterwards. That costs no precision, in bfloat16 neither: a factor
    changes no rounding of floating-point numbers, and 1 is nearer to the middle of their range than 1 / tokens.
    """
    return [weights.astype(np.float32) for weights in _relative(lengths, aggregation)]


def normaliser(lengths: Sequence[np.ndarray], *, aggregation: Aggregation, constant_length: int | None = None) -> float:
    """What the sum over a whole batch, weighted by `relative_weights`, is divided by; at least 1.

    All tokens for `token`, completions that have tokens for `sequence`, completions * `constant_length` for `constant`.
    """
    if aggregation == "token":
        return float(max(sum(int(group.sum()) for group in lengths), 1))
    if aggregation == "sequence":
        return float(max(sum(int(np.count_nonzero(group)) for group in lengths), 1))
    if aggregation == "constant":
        if constant_length is None:
            raise ValueError('aggregation "constant" divides by a fixed length: pass constant_length')
        return float(max(sum(len(group) for group in lengths), 1) * constant_length)
    raise _unknown(aggregation)


def _relative(lengths: Sequence[np.ndarray], aggregation: Aggregation) -> list[np.ndarray]:
    """float64 [N] a group."""
    if aggregation in ("token", "constant"):
        return [np.ones(int(group.sum())) for group in lengths]
    if aggregation == "sequence":
        return [np.repeat(1.0 / np.maximum(group, 1), group) for group in lengths]
    raise _unknown(aggregation)


def _unknown(aggregation: str) -> ValueError:
    return ValueError(f"aggregation {aggregation!r}: choose token, sequence or constant")
