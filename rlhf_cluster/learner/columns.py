"""The columns of a batch or its head, flat over all trained tokens, cut to a microbatch's tokens on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from rlhf_cluster.algorithms import Algorithm, ScoreColumns, TokenColumns
from rlhf_cluster.data.packing import Microbatch
from rlhf_cluster.models.outputs import Outputs
from rlhf_cluster.records import RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchColumns:
    """float32 [N] each, groups one after another in batch order: the order `Microbatch.origin_N` points into. A column
    is None where the groups do not have it."""

    weights_N: torch.Tensor | None
    """Not yet divided by the algorithm's `normaliser`; None where the loss is one of whole groups."""
    behaviour_logprobs_N: torch.Tensor
    old_logprobs_N: torch.Tensor | None
    reference_logprobs_N: torch.Tensor | None
    advantages_N: torch.Tensor | None
    values_N: torch.Tensor | None
    returns_N: torch.Tensor | None
    rewards_S: torch.Tensor | None
    """float32, of all completions; the order `Microbatch.completion_S` points into."""

    @classmethod
    def of(
        cls,
        algorithm: Algorithm,
        groups: Sequence[RolloutGroup],
        *,
        device: torch.device,
        old_logprobs: Sequence[np.ndarray] | None = None,
    ) -> BatchColumns:
        """`old_logprobs` are one [N] a group, where the policy at the beginning of the step is no longer this one."""

        def column(name: str) -> torch.Tensor | None:
            return _column([getattr(group, name) for group in groups], groups, device)

        behaviour_N = column("logprobs")
        assert behaviour_N is not None
        rewards = [group.rewards for group in groups if group.rewards is not None]
        return cls(
            weights_N=None if algorithm.whole_groups else _concatenated(algorithm.token_weights(groups), device),
            behaviour_logprobs_N=behaviour_N,
            old_logprobs_N=None if old_logprobs is None else _column(old_logprobs, groups, device),
            reference_logprobs_N=column("reference_logprobs"),
            advantages_N=column("advantages"),
            values_N=column("values"),
            returns_N=column("returns"),
            rewards_S=_concatenated(rewards, device) if len(rewards) == len(groups) else None,
        )

    def begins_with(self, head: BatchColumns) -> bool:
        """To the bit."""
        pairs = ((getattr(self, field.name), getattr(head, field.name)) for field in fields(self))
        return all(
            whole is part if whole is None or part is None else torch.equal(whole[: len(part)], part)
            for whole, part in pairs
        )

    def weights_of(self, microbatch: Microbatch) -> torch.Tensor:
        weights_N = self._cut(self.weights_N, microbatch)
        assert weights_N is not None, "a loss of tokens is weighted"
        return weights_N

    def tensors_of(self, microbatch: Microbatch, outputs: Outputs) -> TokenColumns | ScoreColumns:
        """What the algorithm's loss reads."""
        row_S = self._tensor(microbatch.row_S)
        num_rows = int(microbatch.row_S[-1]) + 1 if len(microbatch.row_S) else 0
        if outputs.scores_S is not None:
            assert self.rewards_S is not None, "a reward model is trained on groups with rewards"
            rewards_S = self.rewards_S[self._tensor(microbatch.completion_S)]
            return ScoreColumns(scores_S=outputs.scores_S, rewards_S=rewards_S, group_S=row_S, num_groups=num_rows)
        assert outputs.logprobs_N is not None, "a policy has log-probabilities"
        advantages_N = self._cut(self.advantages_N, microbatch)
        assert advantages_N is not None, "the groups are credited"
        return TokenColumns(
            logprobs_N=outputs.logprobs_N,
            behaviour_logprobs_N=self.behaviour_logprobs_N[self._tensor(microbatch.origin_N)],
            old_logprobs_N=self._cut(self.old_logprobs_N, microbatch),
            reference_logprobs_N=self._cut(self.reference_logprobs_N, microbatch),
            advantages_N=advantages_N,
            sequence_N=self._tensor(microbatch.sequence_N),
            num_sequences=microbatch.num_sequences,
            group_S=row_S,
            num_groups=num_rows,
            entropy_N=outputs.entropy_N,
            values_N=outputs.values_N,
            old_values_N=self._cut(self.values_N, microbatch),
            returns_N=self._cut(self.returns_N, microbatch),
        )

    def _cut(self, values_N: torch.Tensor | None, microbatch: Microbatch) -> torch.Tensor | None:
        return None if values_N is None else values_N[self._tensor(microbatch.origin_N)]

    def _tensor(self, indices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(indices).to(self.behaviour_logprobs_N.device)


def _column(
    parts: Sequence[np.ndarray | None], groups: Sequence[RolloutGroup], device: torch.device
) -> torch.Tensor | None:
    filled = [group.trained(part) for group, part in zip(groups, parts, strict=True) if part is not None]
    return _concatenated(filled, device) if len(filled) == len(groups) else None


def _concatenated(parts: Sequence[np.ndarray], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(device)
