"""A rollout engine without a model: deterministic tokens and a latency model, for tests and simulation.

Tokens depend on the request's seed, the completion's index, the position and the weights held, and on nothing else, so
any worker gives the same answer at any time and goes on where another stopped as if nothing had happened. Its
log-probabilities are those of the distribution it really draws from.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from pydantic import Field

from rlhf_cluster.records import RolloutGroup, RolloutRequest
from rlhf_cluster.records.rollout import UNFINISHED
from rlhf_cluster.rollout.engines.request import (
    Completion,
    assemble,
    begun_completions,
    room_for_new_tokens,
    stream_seed,
)
from rlhf_cluster.settings import Settings

if TYPE_CHECKING:
    import torch


class Clock(Protocol):
    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


class ScriptedEngine(Settings):
    """Generates without a model. Not for training."""

    type: Literal["scripted"] = "scripted"
    """Says which engine this is."""
    vocab_size: int = Field(512, ge=3)
    """Tokens are drawn from 0 to this, exclusive."""
    eos_token_id: int = Field(1, ge=0)
    """Ends a completion."""
    eos_probability: float = Field(0.05, ge=0, lt=1)
    """Chance of ending at every token; completions are 1 / this long on average."""
    max_context: int = Field(4096, ge=2)
    """Most tokens of prompt and completion together."""
    token_s: float = Field(0.0, ge=0)
    """Median seconds for one token of every completion in a group."""
    spread: float = Field(0.0, ge=0)
    """Standard deviation of the logarithm of a group's speed; 0.5 makes some groups 2-3 times slower than others."""
    probe: Literal["none", "digests"] = "none"
    """What answers a logit probe. `none`: nothing does, weights are proven by their digests alone.
    `digests`: `probe_logprobs` of the digests held, for tests that need a probe to pass or to fail."""

    def environment(self, threads: int) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(threads)}

    def open(self, model_path: Path | None = None, *, threads: int = 1, clock: Clock = time) -> RunningScripted:
        """`model_path` and `threads` are what every engine is opened with; this one needs neither."""
        return RunningScripted(self, clock=clock)


def probe_logprobs(digests: Mapping[str, str], token_ids: np.ndarray) -> np.ndarray:
    """What an engine with these tensor digests answers to a probe: int32 [T] -> float32 [T-1]."""
    rng = np.random.default_rng([_weights_key(digests), *token_ids.tolist()])
    return -rng.exponential(size=len(token_ids) - 1).astype(np.float32)


@dataclass(slots=True, kw_only=True)
class _Running:
    """A request in flight; its unfinished completions advance together until each has ended. T counts new tokens."""

    request: RolloutRequest
    begun: list[Completion]
    """[G], what was there before."""
    seconds_per_token: float
    ready_at: float
    draws_GT: np.ndarray
    """int64 in 0..V-2, before the weights shift them; -1 ends a completion."""
    lengths_G: np.ndarray
    """Tokens that each completion will add, 0 where it was finished."""
    tokens_GT: np.ndarray
    versions_T: list[int] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        return len(self.versions_T) >= self.lengths_G.max()

    @property
    def num_tokens(self) -> int:
        """Generated so far, of all completions."""
        return int(np.minimum(self.lengths_G, len(self.versions_T)).sum())


class RunningScripted:
    """The open engine; see `Engine`."""

    dtype = None

    def __init__(self, settings: ScriptedEngine, *, clock: Clock) -> None:
        self.max_context = settings.max_context
        self._settings = settings
        self._clock = clock
        self._running: dict[int, _Running] = {}
        self._digests: dict[str, str] = {}
        self._version = -1
        self._num_tokens = 0

    def expected_shapes(self) -> None:
        """Any weights will do."""

    def submit(self, request: RolloutRequest) -> None:
        max_tokens = room_for_new_tokens(request, max_context=self.max_context)
        begun = begun_completions(request, max_new_tokens=max_tokens)
        first_seed = stream_seed(request.seed)
        rngs = [np.random.default_rng(first_seed + index) for index in range(request.num_completions)]
        draws_GT = np.zeros((request.num_completions, max_tokens), dtype=np.int64)
        lengths_G = np.zeros(request.num_completions, dtype=np.int64)
        for index, (completion, rng) in enumerate(zip(begun, rngs, strict=True)):
            draws_T = self._draws(rng, request, num_tokens=max_tokens)[completion.num_tokens :]
            draws_GT[index, : len(draws_T)] = draws_T
            if not completion.is_finished:
                ends_T = draws_T < 0
                lengths_G[index] = ends_T.argmax() + 1 if ends_T.any() else len(draws_T)
        slowness = float(np.exp(self._settings.spread * rngs[0].standard_normal()))
        seconds_per_token = self._settings.token_s * slowness if lengths_G.any() else 0.0
        self._running[request.request_id] = _Running(
            request=request,
            begun=begun,
            seconds_per_token=seconds_per_token,
            ready_at=self._clock.monotonic() + seconds_per_token,
            draws_GT=draws_GT,
            lengths_G=lengths_G,
            tokens_GT=np.zeros_like(draws_GT),
        )

    def _draws(self, rng: np.random.Generator, request: RolloutRequest, *, num_tokens: int) -> np.ndarray:
        """int64 [num_tokens], what a completion draws at each position from its first token on."""
        ends_T = rng.random(num_tokens) < self._settings.eos_probability
        draws_T = rng.integers(self._settings.vocab_size - 1, size=num_tokens)
        return draws_T if request.sampling.ignore_eos else np.where(ends_T, -1, draws_T)

    def step(self) -> list[RolloutGroup]:
        """Sleep until the next token is due anywhere, then give every request that is due one token."""
        if not self._running:
            return []
        now = self._clock.monotonic()
        due = min(running.ready_at for running in self._running.values())
        if due > now:
            self._clock.sleep(due - now)
        for running in self._running.values():
            if running.ready_at <= max(due, now) and not running.is_finished:
                self._advance(running)
        return [self._take_out(running) for running in list(self._running.values()) if running.is_finished]

    def _advance(self, running: _Running) -> None:
        """Sample one token of every unfinished completion."""
        settings = self._settings
        position = len(running.versions_T)
        draws_G = running.draws_GT[:, position]
        shifted_G = (draws_G + _weights_key(self._digests)) % (settings.vocab_size - 1)
        not_eos_G = shifted_G + (shifted_G >= settings.eos_token_id)
        running.tokens_GT[:, position] = np.where(draws_G < 0, settings.eos_token_id, not_eos_G)
        running.versions_T.append(self._version)
        running.ready_at += running.seconds_per_token
        self._num_tokens += int((running.lengths_G > position).sum())

    def _take_out(self, running: _Running) -> RolloutGroup:
        """The group, finished or as far as it got."""
        del self._running[running.request.request_id]
        return assemble(
            running.request,
            [
                begun if begun.is_finished else begun.then(self._completion(running, index))
                for index, begun in enumerate(running.begun)
            ],
        )

    def _completion(self, running: _Running, index: int) -> Completion:
        """What was added to one that was not finished when it came."""
        settings = self._settings
        length = min(int(running.lengths_G[index]), len(running.versions_T))
        tokens_L = running.tokens_GT[index, :length]
        ended_L = tokens_L == settings.eos_token_id
        eos_probability = 0.0 if running.request.sampling.ignore_eos else settings.eos_probability
        other = np.log((1 - eos_probability) / (settings.vocab_size - 1))
        finish_reason = "stop" if ended_L.any() else "length"
        return Completion(
            token_ids=tokens_L,
            logprobs=np.where(ended_L, np.log(max(eos_probability, 1e-30)), other),
            versions=running.versions_T[:length],
            finish_reason=finish_reason if length == running.lengths_G[index] else UNFINISHED,
        )

    def num_in_flight(self) -> int:
        return len(self._running)

    def tokens_generated(self) -> int:
        return self._num_tokens

    def tokens_in_flight(self) -> int:
        return sum(running.num_tokens for running in self._running.values())

    def abort(self, request_ids: Collection[int]) -> None:
        for request_id in request_ids:
            self._running.pop(request_id, None)

    def abort_all(self) -> None:
        self._running.clear()

    def hand_over(self) -> list[RolloutGroup]:
        return [self._take_out(running) for running in list(self._running.values())]

    def names_to_load(self, changed: Collection[str]) -> Collection[str]:
        return changed

    def load_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        from rlhf_cluster.weights.flat import tensor_digest

        loaded = {name: tensor_digest(tensor) for name, tensor in tensors}
        # Unknown names are those of another model, whose weights are all there.
        kept = self._digests if loaded.keys() <= self._digests.keys() else {}
        self._digests = kept | loaded
        self._version = version

    def held_digests(self) -> Mapping[str, str]:
        return dict(self._digests)

    def probe(self, token_ids: np.ndarray) -> np.ndarray:
        """float32 [T-1], or empty where the settings say that nothing answers."""
        if self._settings.probe == "none":
            return np.zeros(0, dtype=np.float32)
        return probe_logprobs(self._digests, token_ids)

    def close(self) -> None:
        self._running.clear()


def _weights_key(digests: Mapping[str, str]) -> int:
    lines = [f"{name} {digest}" for name, digest in sorted(digests.items())]
    return int.from_bytes(hashlib.blake2b("\n".join(lines).encode(), digest_size=7).digest())
