"""Rollout groups as rows of tokens for one forward pass, the prompt of a group computed once.

A row is a small tree: the prompt is the trunk, every completion a branch that sees the trunk and itself. The last token
of a completion predicts nothing that is trained, so it is not an input. `plan` says which rows share a microbatch.

    tokens     p0 p1 p2 | a0 a1 | b0 b1 b2        (completions a0 a1 a2 and b0 b1 b2 b3)
    positions   0  1  2 |  3  4 |  3  4  5
    predicts         a0b0  a1 a2  b1 b2 b3

Measured on SmolLM2-135M the shared trunk is worth 2 to 2.7 times the speed of padded rows (prompt 128, 4-8 branches).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_cluster.records import RolloutGroup

TRUNK = 0
PADDING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One prompt with some or all of the completions of its group."""

    group: int
    """Index of the group within the batch."""
    completions: np.ndarray
    """int64, indices of completions within the group."""
    num_inputs: int
    """Tokens this row occupies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Microbatch:
    """B rows of T inputs, and where each of N predicted tokens finds its hidden state."""

    token_ids_BT: np.ndarray
    """int64; padding is 0."""
    position_ids_BT: np.ndarray
    """int64."""
    branch_BT: np.ndarray
    """int64: 0 the prompt, 1.. a completion, -1 padding. With the causal order it defines who attends to whom."""
    source_N: np.ndarray
    """int64, index into the flattened [B*T] hidden states whose output predicts token n."""
    target_N: np.ndarray
    """int64, the token predicted."""
    sequence_N: np.ndarray
    """int64, which completion of the microbatch a token belongs to, from 0."""
    origin_N: np.ndarray
    """int64, index of the token among all completion tokens of the batch, groups one after another."""

    @property
    def num_sequences(self) -> int:
        return int(self.sequence_N[-1]) + 1 if len(self.sequence_N) else 0


def rows_of(groups: Sequence[RolloutGroup], *, share_prompt: bool, max_row_tokens: int) -> list[Row]:
    """Cut every group into rows of at most `max_row_tokens` inputs (one completion always fits by itself)."""
    return [
        row for index, group in enumerate(groups) for row in _rows_of_group(index, group, share_prompt, max_row_tokens)
    ]


def _rows_of_group(index: int, group: RolloutGroup, share_prompt: bool, max_row_tokens: int) -> Iterator[Row]:
    num_prompt = len(group.prompt.token_ids)
    members: list[int] = []
    num_inputs = num_prompt
    for completion in np.flatnonzero(group.lengths > 0).tolist():
        branch = int(group.lengths[completion]) - 1
        if members and (not share_prompt or num_inputs + branch > max_row_tokens):
            yield Row(group=index, completions=np.array(members), num_inputs=num_inputs)
            members, num_inputs = [], num_prompt
        members.append(completion)
        num_inputs += branch
    if members:
        yield Row(group=index, completions=np.array(members), num_inputs=num_inputs)


def build_microbatch(groups: Sequence[RolloutGroup], rows: Sequence[Row]) -> Microbatch:
    """Lay out the tokens of `rows`. No rows give one padding token and nothing to predict: a rank's empty share."""
    starts = np.cumsum([0] + [group.num_tokens for group in groups])
    width = max((row.num_inputs for row in rows), default=1)
    shape = (max(len(rows), 1), width)
    token_ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    branches = np.full(shape, PADDING, np.int64)
    sources, targets, sequences, origins = [], [], [], []
    num_sequences = 0
    for b, row in enumerate(rows):
        group = groups[row.group]
        num_prompt = len(group.prompt.token_ids)
        token_ids[b, :num_prompt] = group.prompt.token_ids
        positions[b, :num_prompt] = np.arange(num_prompt)
        branches[b, :num_prompt] = TRUNK
        ends = np.cumsum(group.lengths)
        at = num_prompt
        for branch, completion in enumerate(row.completions.tolist(), start=1):
            length, end = int(group.lengths[completion]), int(ends[completion])
            tokens = group.token_ids[end - length : end]
            after = at + length - 1
            token_ids[b, at:after] = tokens[:-1]
            positions[b, at:after] = num_prompt + np.arange(length - 1)
            branches[b, at:after] = branch
            sources.append(b * width + np.concatenate([[num_prompt - 1], np.arange(at, after)]))
            targets.append(tokens)
            sequences.append(np.full(length, num_sequences))
            origins.append(starts[row.group] + np.arange(end - length, end))
            num_sequences += 1
            at = after
    return Microbatch(
        token_ids_BT=token_ids,
        position_ids_BT=positions,
        branch_BT=branches,
        source_N=_flat(sources),
        target_N=_flat(targets),
        sequence_N=_flat(sequences),
        origin_N=_flat(origins),
    )


def _flat(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)
