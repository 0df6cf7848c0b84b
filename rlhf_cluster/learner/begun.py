"""A step that is under way: what a rank has learned of its batch, perhaps before the batch was complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.learner.columns import BatchColumns
from rlhf_cluster.learner.totals import Totals
from rlhf_cluster.records import RolloutGroup


@dataclass(slots=True, kw_only=True)
class StepBegun:
    """The gradients themselves are with the network, not yet divided by the algorithm's `normaliser`."""

    step: int
    algorithm: Algorithm
    groups: Sequence[RolloutGroup]
    """The head of the batch as it was last seen; at the end all of it."""
    columns: BatchColumns
    """Of `groups`."""
    totals: Totals
    tokens_before: int
    """`tokens_total` of the rank when the step began."""
    num_microbatches: int = 0
    """Of this rank's plan, that are in the gradients."""
    num_tokens: int = 0
    """Completion tokens in those."""
    early_s: float = 0.0
    """Spent before the batch was complete."""

    def extend(self, groups: Sequence[RolloutGroup], columns: BatchColumns) -> None:
        self.groups, self.columns = groups, columns

    def is_head_of(
        self, groups: Sequence[RolloutGroup], columns: BatchColumns, *, algorithm: Algorithm, step: int
    ) -> bool:
        """Whether going on with `groups` gives what beginning anew with them gives, to the bit."""
        return (
            self.step == step
            and self.algorithm == algorithm
            and len(self.groups) <= len(groups)
            and all(map(_has_same_inputs, self.groups, groups))
            and columns.begins_with(self.columns)
        )


def _has_same_inputs(one: RolloutGroup, other: RolloutGroup) -> bool:
    return (
        np.array_equal(one.lengths, other.lengths)
        and np.array_equal(one.token_ids, other.token_ids)
        and np.array_equal(one.prompt.token_ids, other.prompt.token_ids)
    )
