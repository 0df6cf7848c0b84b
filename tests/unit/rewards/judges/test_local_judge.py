"""A judge that is a model of this machine: what it reads is the model's own next-token distribution."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.errors import ModelError
from rlhf_cluster.rewards.judges.base import Comparison, Judgement, Verdict
from rlhf_cluster.rewards.judges.settings import LocalJudgeSettings
from rlhf_cluster.rewards.judges.table import make_judge
from rlhf_cluster.rewards.judges.wording import as_plain_text, question
from rlhf_cluster.rewards.sample import Failure, RewardSample
from rlhf_cluster.testing import save_tiny_model

WORDS = ("<unk>", "A", "B", "good", "bad", "worse", "Request:", "Chosen", "option:")
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %} Reply: "


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("judge"), WORDS)


def save(path: Path, words: tuple[str, ...], *, chat_template: str | None = None) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    ids = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    ids.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=ids, unk_token="<unk>")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(path)
    return save_tiny_model(path)


def pair(a: str, b: str) -> Comparison:
    def sample(text: str) -> RewardSample:
        return RewardSample(prompt="say", completion=text, finish_reason="stop", num_tokens=1)

    return Comparison(prompt="say", a=sample(a), b=sample(b))


PAIRS = (pair("good", "bad"), pair("bad bad bad", "good"), pair("worse", "worse"))


def compare(path: Path, *pairs: Comparison, **settings: Any) -> list[Judgement]:
    async def run() -> list[Judgement]:
        judge = make_judge(LocalJudgeSettings.model_validate({"model": str(path), "min_letter_mass": 0, **settings}))
        try:
            await judge.start()
            return await judge.compare(pairs)
        finally:
            await judge.close()

    return asyncio.run(run())


def p_a_of(path: Path, asked: str) -> float:
    """From the whole model's forward on one unpadded question."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    logits = AutoModelForCausalLM.from_pretrained(path)(torch.tensor([tokenizer.encode(asked)])).logits[0, -1]
    return torch.softmax(logits[[WORDS.index("A"), WORDS.index("B")]], dim=0)[0].item()


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_verdict_is_the_models_own_distribution_over_the_letters_in_both_orders(model, batch_size):
    for comparison, verdict in zip(PAIRS, compare(model, *PAIRS, batch_size=batch_size), strict=True):
        shown = [as_plain_text(question(each, ())) for each in (comparison, comparison.swapped)]
        in_order, swapped = (p_a_of(model, asked) for asked in shown)
        assert isinstance(verdict, Verdict)
        assert verdict.p_a == pytest.approx((in_order + 1 - swapped) / 2, abs=1e-5)
        assert verdict.position_bias == pytest.approx((in_order + swapped - 1) / 2, abs=1e-5)


def test_a_model_with_a_chat_template_is_asked_in_a_chat(tmp_path):
    path = save(tmp_path, WORDS, chat_template=CHAT)
    [verdict] = compare(path, PAIRS[2])
    assert isinstance(verdict, Verdict)
    asked = p_a_of(path, f"{question(PAIRS[2], ())} Reply: ")
    assert verdict.position_bias == pytest.approx(asked - 0.5, abs=1e-5)
    assert verdict.p_a == pytest.approx(0.5), "the same text twice"


def test_a_comparison_that_is_too_long_is_invalid_and_the_others_are_judged(model):
    short, long = compare(model, PAIRS[0], pair("bad " * 300, "good"))
    assert isinstance(short, Verdict)
    assert isinstance(long, Failure)
    assert "at most 256 fit" in long.message


def test_a_model_without_the_letters_cannot_judge(tmp_path):
    with pytest.raises(ModelError, match="no token for A or for B"):
        compare(save(tmp_path, ("<unk>", "good", "bad")), PAIRS[0])
