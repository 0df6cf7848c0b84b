"""What every engine does with a request: find room in the context, derive seeds, put the finished group together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_cluster.errors import PromptTooLong
from rlhf_cluster.records import RolloutGroup, RolloutRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One finished completion of L tokens."""

    token_ids: Sequence[int] | np.ndarray
    """[L], the end-of-sequence token included."""
    logprobs: Sequence[float] | np.ndarray
    """[L]."""
    versions: Sequence[int] | np.ndarray
    """[L]."""
    finish_reason: str


def room_for_new_tokens(request: RolloutRequest, *, max_context: int) -> int:
    """How many tokens each completion may have, at least 1. Raises `PromptTooLong` when not even one fits."""
    num_prompt_tokens = len(request.prompt.token_ids)
    room = max_context - num_prompt_tokens
    if room < 1:
        raise PromptTooLong(
            f"prompt {request.prompt.prompt_id} has {num_prompt_tokens} tokens and the engine's context is "
            f"{max_context}: at most {max_context - 1} leave room for an answer. Shorten it, drop it with "
            f"data.max_prompt_tokens = {max_context - 1}, or raise the engine's max_context"
        )
    return min(room, request.sampling.max_new_tokens)


def stream_seed(seed: int) -> int:
    """A 62-bit seed; completion i of the request draws from this plus i.

    Requests usually have neighbouring seeds. Adding i to those would give completion 1 of one prompt the noise of
    completion 0 of the next.
    """
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 2)


def assemble(request: RolloutRequest, completions: Sequence[Completion]) -> RolloutGroup:
    """The request's completions, in order, as one group of flat columns."""
    return RolloutGroup(
        request_id=request.request_id,
        prompt=request.prompt,
        worker_id="",
        lengths=np.array([len(completion.token_ids) for completion in completions], dtype=np.int32),
        token_ids=_column([completion.token_ids for completion in completions], np.int32),
        logprobs=_column([completion.logprobs for completion in completions], np.float32),
        versions=_column([completion.versions for completion in completions], np.int32),
        finish_reasons=tuple(completion.finish_reason for completion in completions),
    )


def _column(parts: Sequence[Sequence[float] | np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.asarray(part, dtype=dtype) for part in parts])
