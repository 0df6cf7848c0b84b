"""The workloads: the same prompts, lengths and counts for every contender, ours, bare and peer.

A prompt is a string that encodes to an exact number of tokens, so a contender that takes strings and one that takes
token ids do equal work. Prompts differ from step to step: a prefix cache may share a prompt inside a group, which is
the work under test, and never across steps, where training would have changed the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle
from typing import Protocol

FILLER = (
    "the film opens on a quiet street at night and follows a young teacher who has lost her way "
    "through a long winter of letters trains and small kindnesses until the river thaws again"
)


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One step's work: `num_prompts` prompts, each with `num_completions` completions sampled to a fixed length."""

    name: str
    num_prompts: int
    num_completions: int
    prompt_tokens: int
    completion_lengths: tuple[int, ...]
    """New tokens of each completion of a group, [num_completions]."""
    num_microbatches: int = 1
    """Into how many equal parts a padded train pass divides the step, so that it fits 8 GiB; one optimizer step."""

    @property
    def num_sequences(self) -> int:
        return self.num_prompts * self.num_completions

    @property
    def max_new_tokens(self) -> int:
        return max(self.completion_lengths)

    @property
    def is_ragged(self) -> bool:
        return len(set(self.completion_lengths)) > 1

    @property
    def generated_tokens(self) -> int:
        """Tokens sampled in one step."""
        return self.num_prompts * sum(self.completion_lengths)

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens of one step, the prompt counted once for every completion, without padding."""
        return self.generated_tokens + self.num_sequences * self.prompt_tokens


def _even(name: str, *, prompts: int, completions: int, prompt_tokens: int, new_tokens: int) -> Workload:
    return Workload(
        name=name,
        num_prompts=prompts,
        num_completions=completions,
        prompt_tokens=prompt_tokens,
        completion_lengths=(new_tokens,) * completions,
    )


# Whole lengths 256, 160, 128, 96, 96, 64, 32, 32 less the prompt: 864 tokens, or 2,048 once all are padded to 256.
RAGGED = replace(
    _even("ragged", prompts=1, completions=8, prompt_tokens=20, new_tokens=0),
    completion_lengths=(236, 140, 108, 76, 76, 44, 12, 12),
)

WORKLOADS = {
    workload.name: workload
    for workload in (
        _even("lite", prompts=2, completions=4, prompt_tokens=20, new_tokens=32),
        _even("full", prompts=4, completions=8, prompt_tokens=20, new_tokens=48),
        replace(_even("prefix512", prompts=2, completions=8, prompt_tokens=512, new_tokens=64), num_microbatches=4),
        RAGGED,
    )
}


def prompt_texts(workload: Workload, *, tokenizer: Tokenizer, step: int) -> list[str]:
    """The prompts of one step, each exactly `prompt_tokens` long.

    Raises ValueError if the tokenizer never meets that length: a benchmark on unequal prompts would compare nothing.
    """
    first = step * workload.num_prompts
    return [
        _text_of_length(f"Review number {first + index}:", length=workload.prompt_tokens, tokenizer=tokenizer)
        for index in range(workload.num_prompts)
    ]


def _text_of_length(opening: str, *, length: int, tokenizer: Tokenizer) -> str:
    text = opening
    # Most words of the filler are one token; where one is two and jumps over the length, a shorter word is tried.
    for word in cycle(FILLER.split()):
        num_tokens = len(tokenizer.encode(text, add_special_tokens=False))
        if num_tokens == length:
            return text
        if num_tokens > length:
            break
        text = f"{text} {word}"
    raise ValueError(f"no prompt of {length} tokens from {opening!r}: the filler jumped over it; choose other words")
