"""The fallback rollout engine: a Hugging Face model, batched, with a key-value cache; a step is one token of every row.

Slower than vLLM and needs nothing but torch and transformers. Requests run in batches, oldest first; the shared prompt
of a group goes through the model once; rows that ended leave the batch. Each completion has its own random stream, one
number a token, so what it draws depends on its batch, and on the engine that began it, only as far as floating-point
rounding does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from rlhf_cluster.errors import ManifestMismatch
from rlhf_cluster.models.load import load_causal_lm
from rlhf_cluster.records import RolloutGroup, RolloutRequest, Sampling
from rlhf_cluster.records.rollout import UNFINISHED
from rlhf_cluster.rollout.engines.checkpoint import (
    Precision,
    end_of_sequence_ids,
    parameter_shapes,
    resolve_context,
    resolve_dtype,
)
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


class TransformersEngine(Settings):
    """Generates with a Hugging Face model."""

    type: Literal["transformers"] = "transformers"
    """Says which engine this is."""
    dtype: Precision = "auto"
    """Precision of weights and activations; `auto` is the checkpoint's."""
    max_context: int | None = Field(None, ge=2)
    """Most tokens of prompt and completion together; None for what the model allows."""
    batch_size: int = Field(32, ge=1)
    """Completions generated at a time, whole groups only; a larger group is a batch of its own."""

    def environment(self, threads: int) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}

    def open(self, model_path: Path, *, threads: int = 1) -> RunningTransformers:
        """Load the model. Call from the thread that will drive the engine: thread counts are per calling thread."""
        import torch

        dtype = resolve_dtype(self.dtype, model_path)
        max_context = resolve_context(self.max_context, model_path)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        model = load_causal_lm(model_path, dtype=getattr(torch, dtype)).requires_grad_(False)
        return RunningTransformers(
            model.to("cuda" if torch.cuda.is_available() else "cpu"),
            dtype=dtype,
            max_context=max_context,
            batch_size=self.batch_size,
            eos_ids=end_of_sequence_ids(model_path),
            shapes=parameter_shapes(model_path),
        )


@dataclass(slots=True, kw_only=True)
class _Row:
    """One completion being sampled: its new tokens, after those that it came with."""

    request: RolloutRequest
    begun: Completion
    max_new_tokens: int
    rng: np.random.Generator
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    finish_reason: str = UNFINISHED

    @property
    def is_finished(self) -> bool:
        return self.finish_reason != UNFINISHED

    def sequence(self) -> list[int]:
        return [*self.request.prompt.token_ids.tolist(), *map(int, self.begun.token_ids), *self.token_ids]

    def completion(self) -> Completion:
        return self.begun.then(
            Completion(
                token_ids=self.token_ids,
                logprobs=self.logprobs,
                versions=self.versions,
                finish_reason=self.finish_reason,
            )
        )


@dataclass(slots=True, kw_only=True)
class _Cache:
    """Keys and values of the running rows, in their order; left-padded."""

    keys_values: Any
    mask_BT: torch.Tensor


class RunningTransformers:
    """The open engine; see `Engine`."""

    def __init__(
        self,
        model: Any,
        *,
        dtype: str,
        max_context: int,
        batch_size: int,
        eos_ids: tuple[int, ...],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.max_context = max_context
        self.dtype = dtype
        self._model: Any = model
        self._batch_size = batch_size
        self._eos_ids = frozenset(eos_ids)
        self._shapes = shapes
        self._queue: deque[list[_Row]] = deque()
        self._groups: dict[int, list[_Row]] = {}
        self._rows: list[_Row] = []
        self._cache: _Cache | None = None
        self._version = -1
        self._num_tokens = 0

    def expected_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def submit(self, request: RolloutRequest) -> None:
        max_new_tokens = room_for_new_tokens(request, max_context=self.max_context)
        begun = begun_completions(request, max_new_tokens=max_new_tokens)
        rows = [_new_row(request, index, begun[index], max_new_tokens=max_new_tokens) for index in range(len(begun))]
        if all(row.is_finished for row in rows):
            self._groups[request.request_id] = rows
        else:
            self._queue.append(rows)

    def step(self) -> list[RolloutGroup]:
        """One more token for every row of the batch; a new batch is made up when the last one has ended."""
        import torch

        if not self._rows:
            self._start_batch()
        if not self._rows:
            return self._finished_groups()
        with torch.inference_mode():
            logits_BV = self._prefill() if self._cache is None else self._decode(self._cache)
            for row, token, logprob in zip(self._rows, *self._sample(logits_BV), strict=True):
                self._append(row, token, logprob)
            self._drop_ended_rows()
        return self._finished_groups()

    def _start_batch(self) -> None:
        while self._queue and len(self._rows) + len(self._queue[0]) <= max(self._batch_size, len(self._queue[0])):
            group = self._queue.popleft()
            self._groups[group[0].request.request_id] = group
            self._rows.extend(row for row in group if not row.is_finished)
        self._cache = None

    def _prefill(self) -> torch.Tensor:
        """Compute everything anew: at the start of a batch, and after the weights changed under it."""
        import torch

        device = self._model.device
        distinct: dict[tuple[int, ...], int] = {}
        source_B = [distinct.setdefault(tuple(row.sequence()), len(distinct)) for row in self._rows]
        width = max(map(len, distinct))
        ids_UT = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in distinct], device=device)
        mask_UT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in distinct], device=device)
        output = self._model(
            input_ids=ids_UT,
            attention_mask=mask_UT,
            position_ids=(mask_UT.cumsum(-1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        output.past_key_values.batch_select_indices(torch.tensor(source_B, device=device))
        self._cache = _Cache(keys_values=output.past_key_values, mask_BT=mask_UT[source_B])
        return output.logits[source_B, -1]

    def _decode(self, cache: _Cache) -> torch.Tensor:
        import torch

        cache.mask_BT = torch.nn.functional.pad(cache.mask_BT, (0, 1), value=1)
        output = self._model(
            input_ids=torch.tensor([[row.token_ids[-1]] for row in self._rows], device=self._model.device),
            attention_mask=cache.mask_BT,
            position_ids=cache.mask_BT.sum(-1, keepdim=True) - 1,
            past_key_values=cache.keys_values,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _sample(self, logits_BV: torch.Tensor) -> tuple[list[int], list[float]]:
        """Tokens [B] and their log-probabilities [B] under the distribution each was drawn from."""
        import torch

        logprobs_BV = torch.stack(
            [
                _distribution(logits_V, row.request.sampling)
                for logits_V, row in zip(logits_BV.float(), self._rows, strict=True)
            ]
        )
        # Inverse of the cumulative distribution: one random number a token. In double precision, because single
        # precision loses the rare tokens of a large vocabulary at the far end of the sum.
        cumulative_BV = logprobs_BV.double().exp().cumsum(-1)
        uniform_B = torch.tensor([row.rng.random() for row in self._rows], dtype=torch.float64)
        targets_B1 = (uniform_B.to(cumulative_BV.device) * cumulative_BV[:, -1]).unsqueeze(-1)
        drawn_B = torch.searchsorted(cumulative_BV, targets_B1, right=True).squeeze(-1)
        greedy_B = torch.tensor([row.request.sampling.temperature == 0 for row in self._rows], device=drawn_B.device)
        tokens_B = torch.where(greedy_B, logits_BV.argmax(-1), drawn_B.clamp(max=logprobs_BV.shape[-1] - 1))
        return tokens_B.tolist(), logprobs_BV.gather(-1, tokens_B.unsqueeze(-1)).squeeze(-1).tolist()

    def _append(self, row: _Row, token: int, logprob: float) -> None:
        row.token_ids.append(token)
        row.logprobs.append(logprob)
        row.versions.append(self._version)
        self._num_tokens += 1
        if token in self._eos_ids and not row.request.sampling.ignore_eos:
            row.finish_reason = "stop"
        elif len(row.token_ids) >= row.max_new_tokens:
            row.finish_reason = "length"

    def _drop_ended_rows(self) -> None:
        import torch

        kept = [index for index, row in enumerate(self._rows) if not row.is_finished]
        if len(kept) == len(self._rows):
            return
        self._rows = [self._rows[index] for index in kept]
        if self._cache is not None and kept:
            indices = torch.tensor(kept, device=self._cache.mask_BT.device)
            self._cache.keys_values.batch_select_indices(indices)
            self._cache.mask_BT = self._cache.mask_BT[indices]

    def _finished_groups(self) -> list[RolloutGroup]:
        done = [key for key, rows in self._groups.items() if all(row.is_finished for row in rows)]
        return [_group(self._groups.pop(key)) for key in done]

    def num_in_flight(self) -> int:
        return len(self._queue) + len(self._groups)

    def tokens_generated(self) -> int:
        return self._num_tokens

    def tokens_in_flight(self) -> int:
        return sum(len(row.token_ids) for rows in self._groups.values() for row in rows)

    def abort(self, request_ids: Collection[int]) -> None:
        self._queue = deque(rows for rows in self._queue if rows[0].request.request_id not in request_ids)
        for row in self._rows:
            if row.request.request_id in request_ids:
                row.finish_reason = "abort"
        self._drop_ended_rows()
        for request_id in request_ids:
            self._groups.pop(request_id, None)

    def abort_all(self) -> None:
        self._queue.clear()
        self._groups.clear()
        self._rows = []
        self._cache = None

    def hand_over(self) -> list[RolloutGroup]:
        groups = [_group(rows) for rows in [*self._groups.values(), *self._queue]]
        self.abort_all()
        return groups

    def names_to_load(self, changed: Collection[str]) -> Collection[str]:
        return changed

    def load_weights(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        import torch

        parameters = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, tensor in tensors:
                if name not in parameters:
                    raise ManifestMismatch(f"weights version {version} have {name}, unknown to this engine's model")
                parameters[name].copy_(tensor)
        self._cache = None
        self._version = version

    def held_digests(self) -> Mapping[str, str]:
        from rlhf_cluster.weights.flat import tensor_digest

        return {name: tensor_digest(tensor.cpu()) for name, tensor in self._model.named_parameters()}

    def probe(self, token_ids: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            ids_1T = torch.from_numpy(token_ids.astype(np.int64)).to(self._model.device).unsqueeze(0)
            logprobs_TV = self._model(input_ids=ids_1T).logits[0, :-1].float().log_softmax(-1)
            return logprobs_TV.gather(-1, ids_1T[0, 1:, None]).squeeze(-1).cpu().numpy()

    def close(self) -> None:
        self.abort_all()
        self._model = None


def _distribution(logits_V: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Log-probabilities [V] that a token is drawn from: temperature, then top-k, then top-p, then normalised.

    At temperature 0 the most likely token is taken; what is recorded then are the log-probabilities at temperature 1.
    """
    if sampling.temperature == 0:
        return logits_V.log_softmax(-1)
    logits_V = logits_V / sampling.temperature
    if 0 < sampling.top_k < len(logits_V):
        logits_V = logits_V.masked_fill(logits_V < logits_V.topk(sampling.top_k).values[-1], float("-inf"))
    if sampling.top_p < 1:
        sorted_V, order_V = logits_V.sort(descending=True)
        before_V = sorted_V.softmax(-1).cumsum(-1) - sorted_V.softmax(-1)
        logits_V = logits_V.index_fill(0, order_V[before_V >= sampling.top_p], float("-inf"))
    return logits_V.log_softmax(-1)


def _new_row(request: RolloutRequest, index: int, begun: Completion, *, max_new_tokens: int) -> _Row:
    rng = np.random.default_rng(stream_seed(request.seed) + index)
    rng.random(begun.num_tokens)  # Used up by the tokens that it came with.
    return _Row(
        request=request,
        begun=begun,
        max_new_tokens=max_new_tokens - begun.num_tokens,
        rng=rng,
        finish_reason=begun.finish_reason,
    )


def _group(rows: list[_Row]) -> RolloutGroup:
    return assemble(rows[0].request, [row.completion() for row in rows])
