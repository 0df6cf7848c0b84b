"""From the groups of a batch, as they are kept, to what the learner gets: the critic's values, then the credit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.records import RolloutGroup

Score = Callable[[Sequence[RolloutGroup]], Awaitable[Sequence[RolloutGroup]]]


async def credited(algorithm: Algorithm, groups: Sequence[RolloutGroup], *, score: Score) -> tuple[RolloutGroup, ...]:
    """`score` is the learner's, at the version that the batch trains: a replay has the same values to the bit."""
    valued = await score(groups) if "value" in algorithm.needs else groups
    return algorithm.credit(valued)
