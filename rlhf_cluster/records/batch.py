"""A batch of scored groups for one optimizer step, and what the learner reports back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlhf_cluster.records.rollout import RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The groups of one step, oldest first."""

    step: int
    groups: tuple[RolloutGroup, ...]

    @property
    def num_completions(self) -> int:
        return sum(group.num_completions for group in self.groups)

    @property
    def num_tokens(self) -> int:
        """Completion tokens that a loss is taken over."""
        return sum(group.num_trained_tokens for group in self.groups)

    def staleness(self) -> int:
        """Step (= the version being trained) minus the oldest version in any group; 0 when all are fresh."""
        ages = [self.step - group.oldest_version for group in self.groups if len(group.versions)]
        return max(ages, default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one `Learner.update` did. Version = number of updates applied so far."""

    step: int
    version: int
    metrics: Mapping[str, float]
    """By metric name, `role/what_unit`: `learner/loss`, `learner/grad_norm`, `learner/update_s`, ..."""
