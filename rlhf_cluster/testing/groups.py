"""Rollout groups by hand: random tokens in the given shape, every column that training reads filled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlhf_cluster.records import Prompt, RolloutGroup


def make_group(
    lengths: Sequence[int],
    *,
    num_prompt_tokens: int = 5,
    request_id: int = 0,
    vocab_size: int = 64,
    version: int = 0,
    seed: int = 0,
) -> RolloutGroup:
    """A complete, scored and credited group with one completion of each length."""
    draw = np.random.default_rng([seed, request_id])
    num_tokens = sum(lengths)
    return RolloutGroup(
        request_id=request_id,
        prompt=Prompt(
            prompt_id=f"{request_id}/0",
            text="prompt",
            token_ids=draw.integers(2, vocab_size, num_prompt_tokens).astype(np.int32),
        ),
        worker_id="rollout-0",
        lengths=np.asarray(lengths, np.int32),
        token_ids=draw.integers(2, vocab_size, num_tokens).astype(np.int32),
        logprobs=-draw.random(num_tokens).astype(np.float32) * 4,
        versions=np.full(num_tokens, version, np.int32),
        finish_reasons=("length",) * len(lengths),
        texts=("text",) * len(lengths),
        rewards=draw.normal(size=len(lengths)).astype(np.float32),
        reference_logprobs=-draw.random(num_tokens).astype(np.float32) * 4,
        advantages=draw.normal(size=num_tokens).astype(np.float32),
    )
