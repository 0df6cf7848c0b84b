"""A reward model: a sequence-classification network with one output, read at the last real token.

Waiting groups share forward passes: one thread takes everything that waits, sorts it by length and runs it in batches.

Where the score is read: transformers pools at the last token that is not `pad_token_id`, whatever the attention mask
says, so with pad == eos (as in many checkpoints) the end-of-sequence token of the text itself is skipped. Here the
mask decides. Both agree whenever the pad id does not occur in the text; for a model trained with pad == eos by
transformers' own pooling, set `append_eos = false`, and they agree as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_cluster.compute_thread import ComputeThread
from rlhf_cluster.errors import ModelError, RoleError
from rlhf_cluster.models.load import load_reward_model
from rlhf_cluster.rewards.sample import Failure, Outcome, RewardSample, failure_of, outcome_of
from rlhf_cluster.rewards.settings import ModelReward

if TYPE_CHECKING:
    import torch


class RewardModel:
    """Belongs to one event loop. `start` before `score`."""

    def __init__(self, settings: ModelReward) -> None:
        self._settings = settings
        self._thread = ComputeThread(settings.label, role="reward model")
        self._waiting: list[tuple[Sequence[RewardSample], asyncio.Future[list[Outcome]]]] = []
        self._drain: asyncio.Task[None] | None = None
        self._model: Any = None
        self._tokenizer: Any = None

    async def start(self) -> None:
        """Load the model. Raises `ModelError`."""
        await self._thread.run("loading the model", self._load)

    async def score(self, samples: Sequence[RewardSample]) -> list[Outcome]:
        answer: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiting.append((samples, answer))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._score_waiting())
        try:
            async with asyncio.timeout(self._settings.time_limit_s):
                return await answer
        except TimeoutError:
            message = f"no answer within {self._settings.time_limit_s:g} s, waiting for the model included"
            return [Failure(kind="timed_out", message=message)] * len(samples)

    async def close(self) -> None:
        """Let a forward pass under way end, then free the model. Who still waits for scores gets a `RoleError`."""
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            _fail(answer, _closed())
        await self._thread.close(self._free)

    async def _score_waiting(self) -> None:
        """Consumes `_waiting`, produces the answers; waits for the thread; ends when nothing waits."""
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            samples = [sample for group, _ in waiting for sample in group]
            try:
                outcomes = iter(await self._thread.run(f"scoring {len(samples)} completions", self._score_all, samples))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
                # It is the waiting ones' to know, our own fault and a closed thread included.
                for _, answer in waiting:
                    _fail(answer, error if isinstance(error, Exception) else _closed())
                continue
            for group, answer in waiting:
                group_outcomes = [next(outcomes) for _ in group]
                if not answer.done():  # timed out, or its caller is gone
                    answer.set_result(group_outcomes)

    def _score_all(self, samples: Sequence[RewardSample]) -> list[Outcome]:
        outcomes: list[Outcome] = [Failure(kind="raised", message="no tokens to read")] * len(samples)
        token_ids: list[list[int]] = [[]] * len(samples)
        for i, sample in enumerate(samples):
            try:
                token_ids[i] = self._token_ids(sample)
            except (TypeError, ValueError) as error:
                # A text that no tokenizer takes, such as one with a lone surrogate.
                outcomes[i] = failure_of(error)
        by_length = sorted((i for i in range(len(samples)) if token_ids[i]), key=lambda i: len(token_ids[i]))
        for first in range(0, len(by_length), self._settings.batch_size):
            batch = by_length[first : first + self._settings.batch_size]
            for i, outcome in zip(batch, self._score_batch([token_ids[i] for i in batch]), strict=True):
                outcomes[i] = outcome
        return outcomes

    def _token_ids(self, sample: RewardSample) -> list[int]:
        if self._settings.reads == "tokens":
            assert sample.token_ids is not None, "the server fills token_ids"
            return sample.token_ids.tolist()[-self._max_tokens :]
        text, tokenizer = sample.prompt + sample.completion, self._tokenizer
        # A chat template has written the first token already.
        starts_itself = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
        ids = tokenizer(text, add_special_tokens=not starts_itself, verbose=False)["input_ids"]
        wants_eos = self._settings.append_eos and sample.finish_reason == "stop" and tokenizer.eos_token_id is not None
        if wants_eos and ids[-1:] != [tokenizer.eos_token_id]:
            ids = [*ids, tokenizer.eos_token_id]
        return ids[-self._max_tokens :]

    def _score_batch(self, token_ids: Sequence[Sequence[int]]) -> list[Outcome]:
        try:
            return [outcome_of(score) for score in self._forward(token_ids)]
        except Exception as error:  # noqa: BLE001
            # Out of memory, or a token id that the model lacks: this batch has no rewards, and the failure says why.
            return [failure_of(error)] * len(token_ids)

    def _forward(self, token_ids: Sequence[Sequence[int]]) -> list[float]:
        """Scores of S sequences, padded on the right to T."""
        import torch

        last_S = torch.tensor([len(ids) - 1 for ids in token_ids], device=self._model.device)
        input_ids_ST = torch.full((len(token_ids), int(last_S.max()) + 1), self._pad_id, dtype=torch.long)
        for row, ids in zip(input_ids_ST, token_ids, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        input_ids_ST = input_ids_ST.to(self._model.device)
        mask_ST = (torch.arange(input_ids_ST.shape[1], device=last_S.device) <= last_S[:, None]).long()
        with torch.inference_mode():
            return self._pooled(input_ids_ST, mask_ST, last_S).float().tolist()

    def _pooled(self, input_ids_ST: torch.Tensor, mask_ST: torch.Tensor, last_S: torch.Tensor) -> torch.Tensor:
        """float [S]. Decoders have the head `score`; encoders pool in a way of their own, which their forward knows."""
        if not hasattr(self._model, "score"):
            return self._model(input_ids=input_ids_ST, attention_mask=mask_ST).logits[:, 0]
        trunk = self._model.base_model
        hidden_STD = trunk(input_ids=input_ids_ST, attention_mask=mask_ST, use_cache=False).last_hidden_state
        return self._model.score(hidden_STD[range(len(last_S)), last_S])[:, 0]

    def _load(self) -> None:
        import torch

        settings = self._settings
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            model, tokenizer = load_reward_model(Path(settings.path), dtype=settings.dtype)
        except ModelError as error:
            raise ModelError(f"reward {settings.label!r}: {error}") from error
        self._model, self._tokenizer = model.to(device), tokenizer
        self._pad_id = tokenizer.pad_token_id or 0  # any id will do: padding is masked
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._max_tokens = min(length for length in (settings.max_tokens, context, 1 << 30) if length)

    def _free(self) -> None:
        self._model = self._tokenizer = None


def _closed() -> RoleError:
    return RoleError("the reward model is closed", role="reward server", activity="scoring")


def _fail(answer: asyncio.Future[list[Outcome]], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
