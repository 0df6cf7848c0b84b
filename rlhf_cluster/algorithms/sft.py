"""Supervised fine-tuning: maximum likelihood of the completion tokens, each token of the batch alike.

The completions of its groups are demonstrations rather than samples; nothing scores them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from rlhf_cluster.algorithms.base import Algorithm, TokenColumns, TokenLoss
from rlhf_cluster.functional import reduce
from rlhf_cluster.records import RolloutGroup


class SFT(Algorithm):
    """Per token: `-log p`, averaged over the tokens of the batch. No hyper-parameters."""

    by_group: ClassVar[bool] = True
    learns_from: ClassVar[tuple[Literal["rollouts", "data"], ...]] = ("data", "rollouts")

    type: Literal["sft"] = "sft"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    def drop_reason(self, group: RolloutGroup) -> str | None:
        return None if group.num_trained_tokens else "no_tokens"

    def credit(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        return tuple(replace(group, advantages=np.ones(group.num_tokens, dtype=np.float32)) for group in groups)

    def token_weights(self, groups: Sequence[RolloutGroup]) -> list[np.ndarray]:
        return reduce.relative_weights([group.trained_lengths for group in groups], aggregation="token")

    def normaliser(self, groups: Sequence[RolloutGroup]) -> float:
        return reduce.normaliser([group.trained_lengths for group in groups], aggregation="token")

    def loss(self, columns: TokenColumns) -> TokenLoss:
        return TokenLoss(loss_N=-columns.advantages_N * columns.logprobs_N, metrics={})
