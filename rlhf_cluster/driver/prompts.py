"""The prompts or recorded examples of a job, and the way back from token ids to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.data.open_draws import open_draws
from rlhf_cluster.data.recorded import open_recorded
from rlhf_cluster.data.recordings import holds_recordings
from rlhf_cluster.data.stream import PromptStream, prompts_once
from rlhf_cluster.data.template import Tokenize, make_tokenize
from rlhf_cluster.driver.recorded import Examples
from rlhf_cluster.driver.rollouts import Decode
from rlhf_cluster.models.load import load_tokenizer, max_context
from rlhf_cluster.models.registry import resolve
from rlhf_cluster.records import Prompt, RolloutGroup

PROBE_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPrompts:
    train: PromptStream | Examples
    """Prompts to answer; examples in a job that learns from data."""
    eval: tuple[Prompt, ...]
    """Held out, to be answered."""
    decode: Decode
    probe_token_ids: np.ndarray
    """int32 [T]: real text of this job, on which learner and engines compare their log-probabilities."""
    held_out: tuple[RolloutGroup, ...] = ()
    """Recorded examples that are never trained on."""


def load_prompts(job: JobConfig) -> JobPrompts:
    """Read and tokenise every prompt once, so that a bad row is named before any worker starts. Raises `DataError`."""
    model_path = resolve(job.model)
    tokenizer = load_tokenizer(model_path)
    tokenize = make_tokenize(tokenizer, template=job.data.template, system=job.data.system)
    longest = max_context(model_path) - 1
    bound = min(longest, job.data.max_prompt_tokens or longest)
    if job.learn_from == "data":
        return _recorded(job, tokenizer, tokenize, max_context=longest + 1, max_prompt_tokens=bound)
    draws = open_draws(job.data.train, seed=job.seed, shuffle=job.data.shuffle)
    train = PromptStream(draws, tokenize, max_prompt_tokens=bound)
    train.verify()
    return JobPrompts(
        train=train,
        eval=_held_out_prompts(job, tokenize, max_prompt_tokens=bound),
        decode=lambda completions: _decode(tokenizer, completions),
        probe_token_ids=_probe_tokens([train[number] for number in range(PROBE_TOKENS)]),
    )


def _recorded(
    job: JobConfig, tokenizer: Any, tokenize: Tokenize, *, max_context: int, max_prompt_tokens: int
) -> JobPrompts:
    data = job.data
    train = open_recorded(data, data.train, tokenizer, seed=job.seed, max_context=max_context)
    held_out: tuple[RolloutGroup, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    if data.eval is not None and holds_recordings(open_draws(data.eval, seed=job.seed, training=data.train)[0].row):
        examples = open_recorded(data, data.eval, tokenizer, seed=job.seed, max_context=max_context, in_order=True)
        held_out = tuple(examples[number] for number in range(min(examples.num_rows, job.evaluation.num_examples)))
    if job.generates:
        prompts = _held_out_prompts(job, tokenize, max_prompt_tokens=max_prompt_tokens)
    return JobPrompts(
        train=train,
        eval=prompts,
        decode=lambda completions: _decode(tokenizer, completions),
        probe_token_ids=_probe_tokens([train[number].prompt for number in range(PROBE_TOKENS)]),
        held_out=held_out,
    )


def _held_out_prompts(job: JobConfig, tokenize: Tokenize, *, max_prompt_tokens: int) -> tuple[Prompt, ...]:
    if job.data.eval is None:
        return ()
    draws = open_draws(job.data.eval, seed=job.seed, shuffle=False, training=job.data.train)
    return tuple(prompts_once(PromptStream(draws, tokenize, max_prompt_tokens=max_prompt_tokens)))


def _decode(tokenizer: Any, completions: Sequence[np.ndarray]) -> list[str]:
    return tokenizer.batch_decode([tokens.tolist() for tokens in completions], skip_special_tokens=True)


def _probe_tokens(prompts: Sequence[Prompt]) -> np.ndarray:
    """The first prompts one after another, cut at PROBE_TOKENS; each has a token, so that many are enough."""
    return np.concatenate([prompt.token_ids for prompt in prompts])[:PROBE_TOKENS]
