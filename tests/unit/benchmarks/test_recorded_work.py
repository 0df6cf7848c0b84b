"""Recorded work is the same for every contender, and its steps cost alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorded_work import EXAMPLES_PER_STEP, padded_tokens, read_steps, write_examples


class WordTokenizer:
    """One token a word."""

    eos_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [1 + sum(map(ord, word)) for word in text.split()]


@pytest.fixture(params=["sft", "dpo"])
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def steps(task: str, tmp_path: Path) -> list:
    path = tmp_path / "examples.jsonl"
    write_examples(path, task=task, num_steps=3, tokenizer=WordTokenizer())
    return read_steps(path, task=task)


def _lengths(examples: list) -> list[list[int]]:
    return sorted([len(each.prompt_ids), *map(len, each.completions)] for each in examples)


def test_every_step_has_the_same_lengths_and_other_words(task: str, steps: list) -> None:
    assert [len(step) for step in steps] == [EXAMPLES_PER_STEP[task]] * 3
    assert _lengths(steps[0]) == _lengths(steps[1]) == _lengths(steps[2])
    assert steps[0] != steps[1]


def test_texts_encode_to_the_ids_and_completions_end_with_the_end_token(task: str, steps: list) -> None:
    tokenizer = WordTokenizer()
    for example in steps[0]:
        prompt, *answers = (tokenizer.encode(text, add_special_tokens=False) for text in example.texts.values())
        assert prompt == example.prompt_ids
        assert [[*answer, tokenizer.eos_token_id] for answer in answers] == list(example.completions)


def test_lengths_are_those_of_real_data_and_padding_would_waste_more_than_a_third(steps: list) -> None:
    [*whole] = [len(each.prompt_ids) + len(answer) for each in steps[0] for answer in each.completions]
    assert min(whole) >= 30
    assert max(whole) <= 250
    assert sum(whole) == sum(each.num_tokens for each in steps[0]) < padded_tokens(steps[0]) * 2 / 3
