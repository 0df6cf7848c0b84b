"""Preference groups and the columns of a microbatch made of them, as packing makes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlhf_cluster.algorithms import TokenColumns
from rlhf_cluster.testing.groups import make_group


@pytest.fixture
def group():
    """A recorded group: rewards that say what is preferred, no versions."""

    def make(rewards, *, lengths=None, masked=()):
        made = make_group(lengths or [2] * len(rewards))
        mask = np.ones(made.num_tokens, dtype=bool)
        mask[list(masked)] = False
        return replace(
            made,
            rewards=np.array(rewards, dtype=np.float32),
            versions=np.zeros(0, dtype=np.int32),
            advantages=None,
            loss_mask=mask if masked else None,
        )

    return make


@pytest.fixture
def columns():
    """The trained tokens of credited groups in float64, with `logprobs` and a `reference` for each of them."""

    def make(groups, logprobs, *, reference=None):
        lengths = np.concatenate([group.trained_lengths for group in groups])
        logprobs_N = torch.as_tensor(logprobs, dtype=torch.float64)
        return TokenColumns(
            logprobs_N=logprobs_N if logprobs_N.requires_grad else logprobs_N.requires_grad_(),
            behaviour_logprobs_N=torch.zeros(len(logprobs_N), dtype=torch.float64),
            old_logprobs_N=None,
            reference_logprobs_N=None if reference is None else torch.as_tensor(reference, dtype=torch.float64),
            advantages_N=torch.tensor(np.concatenate([group.trained(group.advantages) for group in groups])).double(),
            sequence_N=torch.tensor(np.repeat(np.arange(len(lengths)), lengths)),
            num_sequences=len(lengths),
            group_S=torch.tensor(np.repeat(np.arange(len(groups)), [group.num_completions for group in groups])),
            num_groups=len(groups),
        )

    return make
