"""Sums over the microbatches of a step, made means over the batch's tokens once, after the ranks have added theirs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import distributed


class Totals:
    def __init__(self, *, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, loss: torch.Tensor, logprobs_N: torch.Tensor, metrics: Mapping[str, torch.Tensor]) -> None:
        self.loss += loss.double()
        # Tokens were drawn from (nearly) this policy, so the mean of -log p estimates its entropy without a pass over
        # the vocabulary.
        for name, values_N in {**metrics, "entropy": -logprobs_N}.items():
            total = values_N.double().sum()
            self.sums[name] = self.sums[name] + total if name in self.sums else total

    def reduced(self, num_ranks: int, *, num_tokens: int, normaliser: float) -> dict[str, float]:
        """By metric name: `learner/loss`, `learner/entropy` and the algorithm's own figures, over all ranks.

        The batch's figures are divided by its `num_tokens`, its loss by the algorithm's `normaliser`.
        """
        names = sorted(self.sums)
        packed = torch.stack([self.loss, *(self.sums[name] for name in names)])
        if num_ranks > 1:
            distributed.all_reduce(packed)
        loss, *sums = packed.tolist()
        means = {f"learner/{name}": total / num_tokens for name, total in zip(names, sums, strict=True)}
        return {"learner/loss": loss / normaliser, **means}
