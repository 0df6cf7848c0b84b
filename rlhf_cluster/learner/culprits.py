"""Which groups of a refused step hold numbers that are not finite, and where: one row at a time, forward and backward.

Only asked once a loss or gradient was not finite, so that a step that is well pays nothing for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import distributed

from rlhf_cluster.algorithms import GroupLoss
from rlhf_cluster.data.packing import Microbatch
from rlhf_cluster.learner.backends.base import Backend
from rlhf_cluster.learner.begun import StepBegun
from rlhf_cluster.learner.layout import Layout
from rlhf_cluster.learner.predictions import weighted
from rlhf_cluster.models.outputs import Outputs
from rlhf_cluster.records import RolloutGroup

COLUMNS = ("rewards", "advantages", "logprobs", "reference_logprobs", "values", "returns")
PLACES = ("the policy's output", "the loss", "the gradient")
MAX_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Culprit:
    """A group whose own share of loss or gradient is not finite."""

    request_id: int
    where: tuple[str, ...]
    """Its columns that hold such numbers, and what of its computation does."""


def find_culprits(
    begun: StepBegun, *, forward: Callable[..., Outputs], backend: Backend, layout: Layout
) -> tuple[Culprit, ...]:
    """In the order of the batch; the same on all ranks, which do this together. The gradients are cleared."""
    found = torch.zeros(len(begun.groups), len(PLACES), device=begun.totals.loss.device)
    ends = np.cumsum([group.num_completions for group in begun.groups])
    for microbatch in _one_row_each(begun, layout):
        group = int(np.searchsorted(ends, microbatch.completion_S[0], side="right"))
        backend.clear_gradients()
        # Never the last one: ranks must not wait for each other's gradients, which are not to be added.
        with backend.accumulate(last=False):
            found[group] += _not_finite(begun, microbatch, forward=forward, backend=backend)
    backend.clear_gradients()
    if layout.num_ranks > 1:
        distributed.all_reduce(found)
    is_bad = found.bool().cpu().numpy()
    return tuple(
        Culprit(request_id=group.request_id, where=(*_bad_columns(group), *np.array(PLACES)[bad].tolist()))
        for group, bad in zip(begun.groups, is_bad, strict=True)
        if bad.any()
    )


def sentence(culprits: Sequence[Culprit], *, num_groups: int) -> str:
    """Who is to blame, for a person.

    >>> sentence([Culprit(request_id=7, where=("reference_logprobs", "the loss"))], num_groups=4)
    'Not finite in 1 of 4 groups: reference_logprobs, the loss of group 7'
    """
    if not culprits:
        return "Every group alone is finite: their sum is too large. Lower the learning rate, or clip the rewards"
    named = "; ".join(f"{', '.join(each.where)} of group {each.request_id}" for each in culprits[:MAX_NAMED])
    more = f"; and {len(culprits) - MAX_NAMED} more" if len(culprits) > MAX_NAMED else ""
    are_weights = len(culprits) == num_groups and all(PLACES[0] in each.where for each in culprits)
    weights = ". The weights themselves may no longer be finite: lower the learning rate" if are_weights else ""
    return f"Not finite in {len(culprits)} of {num_groups} groups: {named}{more}{weights}"


def _one_row_each(begun: StepBegun, layout: Layout) -> Iterator[Microbatch]:
    """This rank's share of the rows."""
    alone = dataclasses.replace(layout, settings=layout.settings.model_copy(update={"microbatch_tokens": 1}))
    for microbatch, _ in alone.microbatches(begun.groups, whole_groups=begun.algorithm.whole_groups):
        if microbatch.num_sequences:  # a rank that comes out short gets empty ones
            yield microbatch


def _not_finite(
    begun: StepBegun, microbatch: Microbatch, *, forward: Callable[..., Outputs], backend: Backend
) -> torch.Tensor:
    """float32, one for each of `PLACES`: 1 where it is not finite."""
    outputs = forward(microbatch, want_entropy=begun.algorithm.wants_entropy)
    parts = begun.algorithm.loss(begun.columns.tensors_of(microbatch, outputs))
    losses = parts.loss_G if isinstance(parts, GroupLoss) else parts.loss_N
    weighted(parts, begun.columns, microbatch).backward()
    is_finite = (
        all(_is_finite(each) for each in outputs if each is not None),
        _is_finite(losses),
        backend.has_finite_gradients(),
    )
    return 1 - torch.tensor(is_finite, dtype=torch.float32, device=begun.totals.loss.device)


def _is_finite(values: torch.Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _bad_columns(group: RolloutGroup) -> list[str]:
    columns = {name: getattr(group, name) for name in COLUMNS}
    return [name for name, values in columns.items() if values is not None and not np.isfinite(values).all()]
