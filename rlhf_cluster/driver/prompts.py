"""The prompts of a job and the way back from token ids to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.data.sources import read_rows
from rlhf_cluster.data.stream import PromptStream, prompts_in_order
from rlhf_cluster.data.template import make_tokenize
from rlhf_cluster.driver.rollouts import Decode
from rlhf_cluster.models.load import load_tokenizer, max_context
from rlhf_cluster.models.registry import resolve
from rlhf_cluster.records import Prompt

PROBE_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPrompts:
    train: PromptStream
    eval: tuple[Prompt, ...]
    decode: Decode
    probe_token_ids: np.ndarray
    """int32 [T]: real text of this job, on which learner and engines compare their log-probabilities."""


def load_prompts(job: JobConfig) -> JobPrompts:
    """Read and tokenise every prompt once, so that a bad row is named before any worker starts. Raises `DataError`."""
    model_path = resolve(job.model)
    tokenizer = load_tokenizer(model_path)
    tokenize = make_tokenize(tokenizer, template=job.data.template, system=job.data.system)
    longest = max_context(model_path) - 1
    bound = min(longest, job.data.max_prompt_tokens or longest)
    train = PromptStream(
        read_rows(job.data.train), tokenize, seed=job.seed, max_prompt_tokens=bound, shuffle=job.data.shuffle
    )
    train.verify()
    held_out = read_rows(job.data.eval) if job.data.eval else []
    return JobPrompts(
        train=train,
        eval=tuple(prompts_in_order(held_out, tokenize, max_prompt_tokens=bound)),
        decode=lambda completions: _decode(tokenizer, completions),
        probe_token_ids=_probe_tokens(train),
    )


def _decode(tokenizer: Any, completions: Sequence[np.ndarray]) -> list[str]:
    return tokenizer.batch_decode([tokens.tolist() for tokens in completions], skip_special_tokens=True)


def _probe_tokens(stream: PromptStream) -> np.ndarray:
    """The first prompts one after another, cut at PROBE_TOKENS, and repeated where a job has fewer tokens than that."""
    return np.concatenate([stream[number].token_ids for number in range(PROBE_TOKENS)])[:PROBE_TOKENS]
