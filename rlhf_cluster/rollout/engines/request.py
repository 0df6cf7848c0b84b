"""What every engine does with a request: find room, go on with what others began, derive seeds, assemble the group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_cluster.errors import PromptTooLong
from rlhf_cluster.records import RolloutGroup, RolloutRequest
from rlhf_cluster.records.rollout import UNFINISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One completion of L tokens, finished or as far as it got."""

    token_ids: Sequence[int] | np.ndarray
    """[L], the end-of-sequence token included."""
    logprobs: Sequence[float] | np.ndarray
    """[L]."""
    versions: Sequence[int] | np.ndarray
    """[L]."""
    finish_reason: str

    @property
    def is_finished(self) -> bool:
        return self.finish_reason != UNFINISHED

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    def then(self, new: Completion) -> Completion:
        """This one and what followed it, each token with the log-probability and version it was sampled with."""
        return Completion(
            token_ids=_column([self.token_ids, new.token_ids], np.int32),
            logprobs=_column([self.logprobs, new.logprobs], np.float32),
            versions=_column([self.versions, new.versions], np.int32),
            finish_reason=new.finish_reason,
        )


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


def begun_completions(request: RolloutRequest, *, max_new_tokens: int) -> list[Completion]:
    """[G], what there is of each completion before this engine adds to it; nothing yet unless the request was `begun`.

    An unfinished one that has no room for another token, because this engine's context is smaller, ends by length.
    """
    begun = request.begun
    if begun is None:
        nothing = Completion(token_ids=(), logprobs=(), versions=(), finish_reason=UNFINISHED)
        return [nothing] * request.num_completions
    assert begun.num_completions == request.num_completions
    ends = np.cumsum(begun.lengths)[:-1]
    columns = (begun.completions(), np.split(begun.logprobs, ends), np.split(begun.versions, ends))
    return [
        Completion(
            token_ids=token_ids,
            logprobs=logprobs,
            versions=versions,
            finish_reason="length" if reason == UNFINISHED and len(token_ids) >= max_new_tokens else reason,
        )
        for token_ids, logprobs, versions, reason in zip(*columns, begun.finish_reasons, strict=True)
    ]


def stream_seed(seed: int, *, num_begun: int = 0) -> int:
    """A 62-bit seed; completion i of the request draws from this plus i.

    Requests usually have neighbouring seeds. Adding i to those would give completion 1 of one prompt the noise of
    completion 0 of the next. `num_begun`, the tokens that a completion already has, leads to a stream of its own for an
    engine that cannot go on in the middle of one: its start would repeat the noise of the first tokens.
    """
    spawn_key = (num_begun,) if num_begun else ()
    return int(np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(1, np.uint64)[0] >> 2)


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
