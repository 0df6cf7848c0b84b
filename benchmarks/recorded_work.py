"""Recorded examples of ragged length, demonstrations or pairs: the same for every contender, as texts and as ids.

Lengths are lognormal, as those of real data are, and those of one step are those of every step, so that steps cost
alike; the words differ. Every word is one token, so that a job which reads the texts trains on the very same tokens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from workloads import FILLER

Task = Literal["sft", "dpo"]
EXAMPLES_PER_STEP: dict[str, int] = {"sft": 16, "dpo": 8}
NUM_COMPLETIONS: dict[str, int] = {"sft": 1, "dpo": 2}
COLUMNS: dict[str, tuple[str, ...]] = {"sft": ("completion",), "dpo": ("chosen", "rejected")}
PROMPT_TOKENS = (12, 100)
COMPLETION_TOKENS = (18, 150)
"""Least and most, the end token included: an example has 30 to 250."""
LR: dict[str, float] = {"sft": 2e-5, "dpo": 1e-6}
"""TRL's defaults."""


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    eos_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A prompt with its demonstration, or with the preferred answer and the other one."""

    prompt_ids: list[int]
    completions: tuple[list[int], ...]
    """Each with the end token."""
    texts: dict[str, str]
    """The same by the field's column names, without the end token, which trainers add."""

    @property
    def num_trained(self) -> int:
        return sum(map(len, self.completions))

    @property
    def num_tokens(self) -> int:
        """The prompt counted for every completion, without padding."""
        return self.num_trained + len(self.completions) * len(self.prompt_ids)


def write_examples(path: Path, *, task: Task, num_steps: int, tokenizer: Tokenizer) -> None:
    """JSON lines, a step's rows one after another: texts by the field's column names, and `ids`."""
    words = _words_of_one_token(tokenizer)
    lengths = _lengths(task)
    draw = np.random.default_rng(1)
    with path.open("w") as file:
        for _ in range(num_steps):
            for prompt_tokens, completion_tokens in (lengths[row] for row in draw.permutation(len(lengths))):
                row = _row(prompt_tokens, completion_tokens, task=task, words=words, draw=draw, tokenizer=tokenizer)
                file.write(json.dumps(row) + "\n")


def read_steps(path: Path, *, task: Task) -> list[list[Example]]:
    """What each step trains on."""
    examples = [_example(json.loads(line)) for line in path.read_text().splitlines()]
    size = EXAMPLES_PER_STEP[task]
    return [examples[start : start + size] for start in range(0, len(examples), size)]


def _example(row: dict[str, Any]) -> Example:
    prompt_ids, *completions = row.pop("ids")
    return Example(prompt_ids=prompt_ids, completions=tuple(completions), texts=row)


def padded_tokens(examples: Sequence[Example]) -> int:
    """What one padded batch of the same examples computes."""
    whole = [len(each.prompt_ids) + len(completion) for each in examples for completion in each.completions]
    return len(whole) * max(whole)


def _lengths(task: Task) -> list[tuple[int, list[int]]]:
    draw = np.random.default_rng(0)

    def lognormal(median: float, sigma: float, bounds: tuple[int, int], size: int) -> list[int]:
        return np.clip(draw.lognormal(np.log(median), sigma, size).astype(int), *bounds).tolist()

    return [
        (lognormal(40, 0.5, PROMPT_TOKENS, 1)[0], lognormal(80, 0.6, COMPLETION_TOKENS, NUM_COMPLETIONS[task]))
        for _ in range(EXAMPLES_PER_STEP[task])
    ]


def _row(
    prompt_tokens: int,
    completion_tokens: Sequence[int],
    *,
    task: Task,
    words: Sequence[str],
    draw: np.random.Generator,
    tokenizer: Tokenizer,
) -> dict[str, object]:
    def text(num_tokens: int) -> str:
        return "".join(f" {word}" for word in draw.choice(words, num_tokens))

    def encoded(written: str, *, num_tokens: int) -> list[int]:
        ids = tokenizer.encode(written, add_special_tokens=False)
        assert len(ids) == num_tokens, f"{written!r} has {len(ids)} tokens, {num_tokens} were meant"
        return ids

    prompt = "The" + text(prompt_tokens - 1)
    answers = [text(length - 1) for length in completion_tokens]
    ids = [encoded(prompt, num_tokens=prompt_tokens)]
    ids += [
        [*encoded(answer, num_tokens=length - 1), tokenizer.eos_token_id]
        for answer, length in zip(answers, completion_tokens, strict=True)
    ]
    return {"prompt": prompt, **dict(zip(COLUMNS[task], answers, strict=True)), "ids": ids}


def _words_of_one_token(tokenizer: Tokenizer) -> list[str]:
    words = dict.fromkeys(FILLER.split())
    return [word for word in words if len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What every contender is told."""

    model: Path
    data: Path
    task: Task
    variant: str
    """The task, or the task and how it is done: `dpo_precomputed`."""
    num_steps: int
    precision: Literal["bf16", "fp32"]

    def steps(self) -> Iterator[list[Example]]:
        """The examples of the warm-up and of each measured step."""
        yield from read_steps(self.data, task=self.task)[: self.num_steps + 1]


def parse_arguments(description: str | None, *, variants: tuple[str, ...]) -> Arguments:
    """The command line common to all contenders."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="directory of a Hugging Face checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines that `write_examples` has written")
    parser.add_argument("--variant", choices=variants, required=True)
    parser.add_argument("--steps", type=int, default=2, help="measured steps, after one that is dropped")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    given = parser.parse_args()
    task = given.variant.partition("_")[0]
    num_there = len(read_steps(given.data, task=task))
    if num_there <= given.steps:
        parser.error(f"--data {given.data} holds {num_there} steps; --steps {given.steps} needs {given.steps + 1}")
    return Arguments(
        model=given.model,
        data=given.data,
        task=task,
        variant=given.variant,
        num_steps=given.steps,
        precision=given.precision,
    )
