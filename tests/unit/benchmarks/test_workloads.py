"""Workloads give every contender prompts of the same exact length."""

from __future__ import annotations

from dataclasses import replace

import pytest
from workloads import WORKLOADS, prompt_texts


class WordTokenizer:
    """One token a word."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [hash(word) for word in text.split()]


class PairTokenizer(WordTokenizer):
    """Two tokens a word: odd lengths cannot be met."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return super().encode(text, add_special_tokens=add_special_tokens) * 2


@pytest.mark.parametrize("name", WORKLOADS)
def test_prompts_have_the_stated_number_of_tokens(name: str) -> None:
    workload = WORKLOADS[name]
    texts = prompt_texts(workload, tokenizer=WordTokenizer(), step=3)
    assert [len(text.split()) for text in texts] == [workload.prompt_tokens] * workload.num_prompts


def test_no_two_prompts_of_two_steps_are_equal() -> None:
    texts = [
        text for step in range(5) for text in prompt_texts(WORKLOADS["full"], tokenizer=WordTokenizer(), step=step)
    ]
    assert len(set(texts)) == len(texts) == 20


def test_a_length_that_the_tokenizer_jumps_over_is_refused() -> None:
    odd = replace(WORKLOADS["lite"], prompt_tokens=21)
    with pytest.raises(ValueError, match="no prompt of 21 tokens"):
        prompt_texts(odd, tokenizer=PairTokenizer(), step=0)


def test_token_counts_of_the_lite_workload() -> None:
    lite = WORKLOADS["lite"]
    assert (lite.num_sequences, lite.generated_tokens, lite.total_tokens) == (8, 256, 416)


def test_the_ragged_workload_pads_864_tokens_to_2048() -> None:
    ragged = WORKLOADS["ragged"]
    padded = ragged.num_sequences * (ragged.prompt_tokens + ragged.max_new_tokens)
    assert (ragged.total_tokens, padded) == (864, 2048)
