"""What the network says of whole groups, without learning: log-probabilities, values, scores, or a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import distributed

from rlhf_cluster.algorithms import Algorithm, GroupLoss, TokenLoss
from rlhf_cluster.data.packing import Microbatch, by_group
from rlhf_cluster.learner.columns import BatchColumns
from rlhf_cluster.learner.layout import Layout
from rlhf_cluster.learner.totals import Totals
from rlhf_cluster.models.outputs import Outputs
from rlhf_cluster.records import RolloutGroup

Forward = Callable[[Microbatch], Outputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """One array a group; None where the network has no such output."""

    logprobs: list[np.ndarray] | None
    """float32 [N], zero where a token is not trained on; likewise the values."""
    values: list[np.ndarray] | None
    scores: list[np.ndarray] | None
    """float32 [G]."""


@torch.no_grad()
def predict(groups: Sequence[RolloutGroup], *, forward: Forward, layout: Layout, device: torch.device) -> Predictions:
    """Every rank computes its share and gets the whole."""
    num_tokens = sum(group.num_trained_tokens for group in groups)
    num_completions = sum(group.num_completions for group in groups)
    # Before the first microbatch nobody knows which outputs there are, and a rank may have none of its own.
    found = torch.zeros(2, num_tokens, dtype=torch.float32, device=device)
    scores = torch.zeros(num_completions, dtype=torch.float32, device=device)
    outputs = Outputs()
    for microbatch, _ in layout.microbatches(groups, whole_groups=False):
        outputs = forward(microbatch)
        origin_N = torch.from_numpy(microbatch.origin_N).to(device)
        for row, column in enumerate((outputs.logprobs_N, outputs.values_N)):
            if column is not None:
                found[row, origin_N] = column
        if outputs.scores_S is not None:
            scores[torch.from_numpy(microbatch.completion_S).to(device)] = outputs.scores_S
    if layout.num_ranks > 1:
        distributed.all_reduce(found)
        distributed.all_reduce(scores)
    logprobs, values = (by_group(groups, row) for row in found.cpu().numpy())
    return Predictions(
        logprobs=None if outputs.logprobs_N is None else logprobs,
        values=None if outputs.values_N is None else values,
        scores=None if outputs.scores_S is None else _by_completion(groups, scores.cpu().numpy()),
    )


@torch.no_grad()
def assess(
    algorithm: Algorithm, groups: Sequence[RolloutGroup], *, forward: Forward, layout: Layout, device: torch.device
) -> dict[str, float]:
    """The loss and figures that a step over the credited `groups` would begin with; names as in a step's report."""
    columns = BatchColumns.of(algorithm, groups, device=device)
    totals = Totals(device=device)
    for microbatch, _ in layout.microbatches(groups, whole_groups=algorithm.whole_groups):
        outputs = forward(microbatch)
        parts = algorithm.loss(columns.tensors_of(microbatch, outputs))
        totals.add(weighted(parts, columns, microbatch), parts, outputs)
    return totals.reduced(
        layout.num_ranks,
        num_tokens=sum(group.num_trained_tokens for group in groups),
        num_groups=len(groups),
        normaliser=algorithm.normaliser(groups),
    )


def weighted(parts: TokenLoss | GroupLoss, columns: BatchColumns, microbatch: Microbatch) -> torch.Tensor:
    """The microbatch's share of the step's loss, before the algorithm's normaliser."""
    if isinstance(parts, GroupLoss):
        return parts.loss_G.sum()
    return (columns.weights_of(microbatch) * parts.loss_N).sum()


def _by_completion(groups: Sequence[RolloutGroup], values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, np.cumsum([group.num_completions for group in groups])[:-1])
