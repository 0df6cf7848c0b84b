"""The tokens of simulated groups: slices of one shared template, chosen by a request's seed and the weight version.

Equal seeds and versions give equal tokens on any worker at any time, and a whole group costs a few microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from rlhf_cluster.records import RolloutGroup, RolloutRequest
from rlhf_cluster.records.rollout import UNFINISHED

NUM_IDS = 30
"""Token ids are 2 to 31, which every tokenizer has."""
SPREAD = 0x9E3779B97F4A7C15
"""Odd, with no pattern in its bits: neighbouring seeds start far apart in the template."""

Span = tuple[int, int]
"""(position, version): from this position within its completion on, a token is sampled by this version."""


def draw(seed: int, version: int, num_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int32 [N] and log-probabilities float32 [N]; views that nobody can write to."""
    tokens, logprobs = _template(1 << max(16, (4 * num_tokens).bit_length()))
    mixed = ((seed + 1) * SPREAD + version * 0xC2B2AE3D27D4EB4F) >> 17
    start = mixed % (len(tokens) - num_tokens)
    return tokens[start : start + num_tokens], logprobs[start : start + num_tokens]


def whole_group(request: RolloutRequest, *, worker_id: str, num_tokens: int, version: int) -> RolloutGroup:
    """All completions, `num_tokens` each, from one version."""
    num = request.num_completions
    tokens, logprobs = draw(request.seed, version, num * num_tokens)
    return RolloutGroup(
        request_id=request.request_id,
        prompt=request.prompt,
        worker_id=worker_id,
        lengths=_constant(num, num_tokens),
        token_ids=tokens,
        logprobs=logprobs,
        versions=_constant(num * num_tokens, version),
        finish_reasons=(_ending(request, num_tokens),) * num,
    )


def grown_group(
    request: RolloutRequest, *, worker_id: str, num_tokens: int, position: int, spans: Sequence[Span]
) -> RolloutGroup:
    """Completions that are to have `num_tokens` each, as far as `position`, over what was begun elsewhere.

    `spans` ascend; the first one starts no later than the shortest completion that goes on.
    """
    new = _new_columns(request, num_tokens=num_tokens, position=position, spans=spans)
    begun = _begun_columns(request)
    ending = _ending(request, num_tokens) if position == num_tokens else UNFINISHED
    reasons = request.begun.finish_reasons if request.begun else (UNFINISHED,) * request.num_completions
    parts: list[list[np.ndarray]] = []
    for i, (kept, reason) in enumerate(zip(begun, reasons, strict=True)):
        length = len(kept[0])
        grows = reason == UNFINISHED and length < position
        parts.append(
            [np.concatenate([old, rows[i, length:]]) if grows else old for old, rows in zip(kept, new, strict=True)]
        )
    return RolloutGroup(
        request_id=request.request_id,
        prompt=request.prompt,
        worker_id=worker_id,
        lengths=np.array([len(tokens) for tokens, _, _ in parts], np.int32),
        token_ids=np.concatenate([tokens for tokens, _, _ in parts]),
        logprobs=np.concatenate([logprobs for _, logprobs, _ in parts]),
        versions=np.concatenate([versions for _, _, versions in parts]),
        finish_reasons=tuple(ending if reason == UNFINISHED else reason for reason in reasons),
    )


def shortest_begun(request: RolloutRequest) -> int:
    """Tokens of the shortest completion that is to go on; 0 where nothing was begun."""
    if request.begun is None:
        return 0
    ends = zip(request.begun.lengths.tolist(), request.begun.finish_reasons, strict=True)
    return min((length for length, reason in ends if reason == UNFINISHED), default=0)


def _new_columns(
    request: RolloutRequest, *, num_tokens: int, position: int, spans: Sequence[Span]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, log-probabilities and versions [G, position]; what lies before the first span is never read."""
    shape = (request.num_completions, position)
    tokens_GT, logprobs_GT, versions_GT = (
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.int32),
    )
    for start, version in spans:
        tokens, logprobs = draw(request.seed, version, request.num_completions * num_tokens)
        tokens_GT[:, start:] = tokens.reshape(-1, num_tokens)[:, start:position]
        logprobs_GT[:, start:] = logprobs.reshape(-1, num_tokens)[:, start:position]
        versions_GT[:, start:] = version
    return tokens_GT, logprobs_GT, versions_GT


def _begun_columns(request: RolloutRequest) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    begun = request.begun
    if begun is None:
        nothing = (np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int32))
        return [nothing] * request.num_completions
    cuts = np.cumsum(begun.lengths)[:-1]
    columns = (np.split(column, cuts) for column in (begun.token_ids, begun.logprobs, begun.versions))
    return list(zip(*columns, strict=True))


def _ending(request: RolloutRequest, num_tokens: int) -> str:
    return "length" if num_tokens == request.sampling.max_new_tokens else "stop"


@lru_cache(maxsize=8)
def _template(num_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_tokens)
    tokens = rng.integers(2, 2 + NUM_IDS, num_tokens).astype(np.int32)
    logprobs = -rng.exponential(size=num_tokens).astype(np.float32)
    return _read_only(tokens), _read_only(logprobs)


@lru_cache(maxsize=1024)
def _constant(num: int, value: int) -> np.ndarray:
    return _read_only(np.full(num, value, np.int32))


def _read_only(values: np.ndarray) -> np.ndarray:
    values.setflags(write=False)
    return values
