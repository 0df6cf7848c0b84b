"""Sums over the microbatches of a step, made means over the batch once, after the ranks have added theirs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import distributed

from rlhf_cluster.algorithms import GroupLoss, TokenLoss
from rlhf_cluster.models.outputs import Outputs


class Totals:
    def __init__(self, *, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.token_sums: dict[str, torch.Tensor] = {}
        self.group_sums: dict[str, torch.Tensor] = {}

    def add(self, loss: torch.Tensor, parts: TokenLoss | GroupLoss, outputs: Outputs) -> None:
        self.loss += loss.double()
        if isinstance(parts, GroupLoss):
            _add(self.group_sums, parts.metrics)
            return
        _add(self.token_sums, parts.metrics)
        if outputs.entropy_N is not None:
            _add(self.token_sums, {"entropy": outputs.entropy_N.detach()})
        elif outputs.logprobs_N is not None:
            # Tokens were drawn from (nearly) this policy, so the mean of -log p estimates its entropy without a pass
            # over the vocabulary.
            _add(self.token_sums, {"entropy": -outputs.logprobs_N.detach()})

    def reduced(self, num_ranks: int, *, num_tokens: int, num_groups: int, normaliser: float) -> dict[str, float]:
        """By metric name: `learner/loss`, `learner/entropy` and the algorithm's own figures, over all ranks.

        The batch's figures are divided by its `num_tokens` or `num_groups`, its loss by the algorithm's `normaliser`.
        """
        counts = dict.fromkeys(sorted(self.token_sums), num_tokens) | dict.fromkeys(sorted(self.group_sums), num_groups)
        sums = self.token_sums | self.group_sums
        packed = torch.stack([self.loss, *(sums[name] for name in counts)])
        if num_ranks > 1:
            distributed.all_reduce(packed)
        loss, *totals = packed.tolist()
        means = {
            f"learner/{name}": total / max(count, 1)
            for (name, count), total in zip(counts.items(), totals, strict=True)
        }
        return {"learner/loss": loss / normaliser, **means}


def _add(sums: dict[str, torch.Tensor], metrics: Mapping[str, torch.Tensor]) -> None:
    for name, values in metrics.items():
        total = values.double().sum()
        sums[name] = sums[name] + total if name in sums else total
