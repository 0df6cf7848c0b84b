"""Streamed text from a checkpoint for a person who waits for it: one prompt at a time, word by word."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer
from transformers.utils import logging as transformers_logging

from rlhf_cluster.errors import DataError, RlhfError
from rlhf_cluster.models.load import load_causal_lm, load_tokenizer, max_context
from rlhf_cluster.records import Sampling

TOKEN_LIMIT_S = 120.0
"""Longest wait for the next piece of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    role: str
    """`system`, `user` or `assistant`."""
    content: str


class Continuation:
    """A model and its tokenizer. Raises `ModelError` when `model_dir` holds none."""

    def __init__(self, model_dir: Path) -> None:
        transformers_logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._max_context = max_context(model_dir)
        self._tokenizer: Any = load_tokenizer(model_dir)
        saved_dtype = AutoConfig.from_pretrained(model_dir, local_files_only=True).dtype
        self._model: Any = load_causal_lm(model_dir, dtype=saved_dtype or torch.float32).to(device)

    @property
    def has_chat_template(self) -> bool:
        return bool(self._tokenizer.chat_template)

    def render(self, turns: Sequence[Turn]) -> str:
        """The text that the chat template makes of `turns`, ending where the assistant's answer begins."""
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def stream(self, text: str, sampling: Sampling, *, rendered: bool, seed: int) -> Iterator[str]:
        """Pieces of the continuation of `text`, special tokens left out. Temperature 0 is greedy.

        `rendered` text comes from `render`, which wrote the special tokens; to other text the tokenizer adds its own.

        Closing the iterator stops the generation. Raises `DataError` when `text` holds no token or fills the context.
        """
        token_ids = self._tokenizer(text, return_tensors="pt", add_special_tokens=not rendered).input_ids
        self._check_length(token_ids.shape[1])
        generation = _Generation(self._model, self._tokenizer)
        torch.manual_seed(seed)
        return generation.pieces(
            input_ids=token_ids.to(self._model.device),
            attention_mask=torch.ones_like(token_ids).to(self._model.device),
            max_new_tokens=min(sampling.max_new_tokens, self._max_context - token_ids.shape[1]),
            pad_token_id=self._pad_token_id(),
            **_drawing(sampling),
        )

    def _check_length(self, num_tokens: int) -> None:
        if num_tokens == 0:
            raise DataError("the prompt holds no token; write something")
        if num_tokens >= self._max_context:
            raise DataError(
                f"the conversation has {num_tokens} tokens and the model reads {self._max_context}; start anew"
            )

    def _pad_token_id(self) -> int:
        known = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        return next((token_id for token_id in known if token_id is not None), 0)


def _drawing(sampling: Sampling) -> dict[str, Any]:
    """What `generate` calls it. Every filter is named, because a model's own defaults would fill in what is not."""
    if sampling.temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
    }


class _Generation(StoppingCriteria):
    """One `generate` in a thread of its own, read through a streamer, stopped when its reader goes away."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._streamer = TextIteratorStreamer(
            tokenizer, skip_prompt=True, timeout=TOKEN_LIMIT_S, skip_special_tokens=True
        )
        self._abandoned = threading.Event()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._abandoned.is_set(), device=input_ids.device, dtype=torch.bool)

    def pieces(self, **arguments: Any) -> Iterator[str]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="continuation") as thread:
            criteria = StoppingCriteriaList([self])
            writing = thread.submit(
                self._model.generate, **arguments, streamer=self._streamer, stopping_criteria=criteria
            )
            # A generation that failed would otherwise leave its reader waiting for text.
            writing.add_done_callback(lambda _: self._streamer.end())
            try:
                yield from self._streamer
            except queue.Empty:
                raise RlhfError(f"the model wrote nothing for {TOKEN_LIMIT_S:.0f} s") from None
            finally:
                self._abandoned.set()
            writing.result(timeout=TOKEN_LIMIT_S)
