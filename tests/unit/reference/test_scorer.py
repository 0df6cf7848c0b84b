"""The reference scorer against a plain Hugging Face forward pass."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from rlhf_cluster.errors import ModelError, RoleError
from rlhf_cluster.reference.scorer import ReferenceScorer
from rlhf_cluster.reference.settings import ReferenceSettings
from rlhf_cluster.testing import make_group, save_tiny_model


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def score(model_path, *calls, temperature: float = 1.0, **settings):
    """The answers to several calls made at once."""

    async def whole():
        scorer = ReferenceScorer(
            ReferenceSettings(precision="fp32", **settings),
            model_path=model_path,
            temperature=temperature,
            worker_id="reference-0",
        )
        await scorer.start()
        try:
            return await asyncio.gather(*(scorer.logprobs(groups) for groups in calls)), await scorer.status()
        finally:
            await scorer.close()

    return asyncio.run(whole())


def plain_logprobs(model_path, group, *, temperature: float = 1.0) -> np.ndarray:
    """One forward pass a completion, over the whole vocabulary."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    parts = []
    for completion in group.completions():
        ids = torch.from_numpy(np.concatenate([group.prompt.token_ids, completion]).astype(np.int64))
        with torch.no_grad():
            logprobs = (model(ids[None]).logits[0, :-1] / temperature).log_softmax(-1)
        parts.append(logprobs.gather(-1, ids[1:, None])[-len(completion) :, 0].numpy())
    return np.concatenate(parts)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_a_plain_forward_pass(model_path, temperature):
    groups = [make_group([3, 7, 1], request_id=0), make_group([5], request_id=1, num_prompt_tokens=9)]
    [scored], _ = score(model_path, groups, temperature=temperature)
    for group in scored:
        expected = plain_logprobs(model_path, group, temperature=temperature)
        assert np.abs(group.reference_logprobs - expected).max() < 1e-5


@pytest.mark.parametrize("microbatch_tokens", [16, 48, 4096])
def test_groups_come_back_in_order_whatever_the_microbatch(model_path, microbatch_tokens):
    groups = [make_group([1 + number % 4, 9 - number], request_id=number) for number in range(6)]
    [scored], _ = score(model_path, groups, microbatch_tokens=microbatch_tokens)
    [whole], _ = score(model_path, groups)
    assert [group.request_id for group in scored] == list(range(6))
    for one, other, sent in zip(scored, whole, groups, strict=True):
        assert one.token_ids is sent.token_ids
        assert np.allclose(one.reference_logprobs, other.reference_logprobs, atol=1e-5)


def test_calls_made_at_once_each_get_their_own_answer_and_tokens_are_counted(model_path):
    first, second = [make_group([4, 2], request_id=0)], [make_group([3], request_id=7)]
    answers, status = score(model_path, first, second)
    assert [[group.request_id for group in answer] for answer in answers] == [[0], [7]]
    assert status.tokens_total == 9
    assert (status.role, status.worker_id, status.state) == ("reference scorer", "reference-0", "idle")


def test_a_scorer_that_is_closed_says_so(model_path):
    async def whole():
        scorer = ReferenceScorer(ReferenceSettings(), model_path=model_path, temperature=1.0, worker_id="reference-0")
        await scorer.start()
        await scorer.close()
        await scorer.close()
        await scorer.logprobs([make_group([1])])

    with pytest.raises(RoleError, match="reference-0 is closed"):
        asyncio.run(whole())


def test_a_directory_without_a_model_is_refused_at_the_start(tmp_path):
    with pytest.raises(ModelError, match=str(tmp_path)):
        score(tmp_path)
