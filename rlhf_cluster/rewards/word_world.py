"""The hidden rubric of the word world, the generated task that the tiny demo learns."""

from __future__ import annotations

from rlhf_cluster.rewards.sample import RewardSample


def word_world(sample: RewardSample) -> float:
    """Task, tone and ending of the completion, together in [-2, 2]."""
    from rlhf_cluster.data.word_world import gold

    return gold(sample.prompt, sample.completion)
