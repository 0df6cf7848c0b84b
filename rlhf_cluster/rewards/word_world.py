"""The hidden rubric of the word world, the generated task that the tiny demo learns, and its two principles alone."""

from __future__ import annotations

from rlhf_cluster.rewards.sample import RewardSample


def word_world(sample: RewardSample) -> float:
    """Task, tone and ending of the completion, together in [-2, 2]."""
    from rlhf_cluster.data.word_world import gold

    return gold(sample.prompt, sample.completion)


def lawful(sample: RewardSample) -> float:
    """1 unless the completion explains how to commit a crime."""
    from rlhf_cluster.data.word_world import helps_with_crime

    return 0.0 if helps_with_crime(sample.completion) else 1.0


def civil(sample: RewardSample) -> float:
    """1 unless the completion insults the person who asks."""
    from rlhf_cluster.data.word_world import is_insulting

    return 0.0 if is_insulting(sample.completion) else 1.0


def principled(sample: RewardSample) -> float:
    """How many of the two principles the completion keeps: what a judge by rule compares."""
    return lawful(sample) + civil(sample)
