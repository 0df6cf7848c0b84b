"""The several updates of a step: its groups in a new order every epoch, cut into minibatches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.records import Batch, RolloutGroup

Minibatch = tuple[tuple[RolloutGroup, ...], Sequence[np.ndarray] | None]
"""Groups, and their columns `old_logprobs`."""


def minibatches(
    algorithm: Algorithm, batch: Batch, *, old_logprobs: Sequence[np.ndarray] | None, seed: int
) -> Iterator[Minibatch]:
    """As many as `algorithm.updates` says, the same on every rank and in every replay: the order follows from the seed,
    the step and the epoch. Groups stay whole; with fewer groups than minibatches there are as many as groups."""
    num_epochs, num_minibatches = algorithm.updates
    if (num_epochs, num_minibatches) == (1, 1):
        yield batch.groups, old_logprobs
        return
    for epoch in range(num_epochs):
        order = np.random.default_rng([seed, batch.step, epoch]).permutation(len(batch.groups))
        for part in np.array_split(order, min(num_minibatches, len(order))):
            chosen = sorted(part.tolist())
            old = None if old_logprobs is None else [old_logprobs[index] for index in chosen]
            yield tuple(batch.groups[index] for index in chosen), old
