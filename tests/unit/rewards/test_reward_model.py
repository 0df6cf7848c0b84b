"""The reward model against transformers' own forward, on tiny random networks."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from rlhf_cluster.errors import ModelError
from rlhf_cluster.rewards.model import RewardModel
from rlhf_cluster.rewards.sample import Failure, RewardSample
from rlhf_cluster.rewards.settings import ModelReward

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["<pad>", "</s>", "<unk>", "the", "film", "was", "good", "bad", "very", "long", "short", "and", "not"]


def save_model(directory, *, pad_token: str = "<pad>", num_labels: int = 1, encoder: bool = False):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=pad_token, eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    shape = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "max_position_embeddings": 64, "num_labels": num_labels}
    shape |= {"pad_token_id": tokenizer.pad_token_id}
    if encoder:
        model = transformers.BertForSequenceClassification(transformers.BertConfig(**shape))
    else:
        model = transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**shape, initializer_range=0.5))
    model.save_pretrained(directory)
    return model.eval()


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    directory = tmp_path_factory.mktemp("llama")
    return directory, save_model(directory)


def token_ids(text: str, *, eos: bool = True) -> list[int]:
    return [WORDS.index(word) for word in text.split()] + ([1] if eos else [])


def sample(text: str, *, finish_reason: str = "stop", ids: list[int] | None = None) -> RewardSample:
    prompt, completion = text[:4], text[4:]
    ids_PL = np.array(token_ids(text) if ids is None else ids, dtype=np.int32)
    return RewardSample(
        prompt=prompt, completion=completion, finish_reason=finish_reason, num_tokens=1, token_ids=ids_PL
    )


def score(path, *groups: list[RewardSample], **settings):
    """The outcomes of groups that are scored at the same time."""

    async def run():
        model = RewardModel(ModelReward(path=str(path), **settings))
        await model.start()
        try:
            return await asyncio.gather(*(model.score(group) for group in groups))
        finally:
            await model.close()

    return asyncio.run(run())


TEXTS = ["the film was good", "the film was very very long and not good", "the bad", "the film was short and good"]


def plain_scores(model, texts, *, eos: bool = True) -> list[float]:
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([token_ids(text, eos=eos)])).logits) for text in texts]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_scores_are_those_of_each_text_alone_whatever_the_batch(llama, batch_size):
    directory, model = llama
    groups = [[sample(text) for text in TEXTS], [sample(text) for text in reversed(TEXTS)]]
    forward, backward = score(directory, *groups, batch_size=batch_size)
    assert forward == pytest.approx(plain_scores(model, TEXTS), abs=1e-5)
    assert backward == pytest.approx(forward[::-1], abs=1e-6)
    assert max(forward) - min(forward) > 0.1


def test_a_completion_cut_off_gets_no_end_of_sequence_token(llama):
    directory, model = llama
    (cut,) = score(directory, [sample(text, finish_reason="length") for text in TEXTS])
    assert cut == pytest.approx(plain_scores(model, TEXTS, eos=False), abs=1e-5)
    (without,) = score(directory, [sample(text) for text in TEXTS], append_eos=False)
    assert without == cut


def test_a_text_that_no_tokenizer_takes_fails_alone(llama):
    directory, model = llama
    broken = dataclasses.replace(sample("the film"), completion="\ud800")
    (outcomes,) = score(directory, [sample(TEXTS[0]), broken, sample(TEXTS[1])])
    assert isinstance(outcomes[1], Failure)
    assert [outcomes[0], outcomes[2]] == pytest.approx(plain_scores(model, TEXTS[:2]), abs=1e-5)


def test_token_ids_of_the_policy_are_read_as_they_are(llama):
    directory, model = llama
    (outcomes,) = score(directory, [sample(text) for text in TEXTS], reads="tokens")
    assert outcomes == pytest.approx(plain_scores(model, TEXTS), abs=1e-5)


def test_the_last_real_token_is_read_even_when_it_is_the_pad_token(tmp_path):
    model = save_model(tmp_path, pad_token="</s>")
    model.config.pad_token_id = 0  # an id that does not occur: so transformers reads the last token as well
    (outcomes,) = score(tmp_path, [sample(text) for text in TEXTS])
    assert outcomes == pytest.approx(plain_scores(model, TEXTS), abs=1e-5)
    model.config.pad_token_id = 1  # without an end-of-sequence token in the text both agree with pad == eos, too
    (outcomes,) = score(tmp_path, [sample(text) for text in TEXTS], append_eos=False)
    assert outcomes == pytest.approx(plain_scores(model, TEXTS, eos=False), abs=1e-5)


def test_encoders_are_pooled_in_their_own_way(tmp_path):
    model = save_model(tmp_path, encoder=True)
    (outcomes,) = score(tmp_path, [sample(text) for text in TEXTS])
    assert outcomes == pytest.approx(plain_scores(model, TEXTS), abs=1e-5)


def test_inputs_that_are_too_long_lose_their_beginning(llama):
    directory, model = llama
    (outcomes,) = score(directory, [sample("the film was very good")], max_tokens=3)
    assert outcomes == pytest.approx(plain_scores(model, ["very good"]), abs=1e-5)
    (outcomes,) = score(directory, [sample("good " * 100)])
    assert outcomes == pytest.approx(plain_scores(model, ["good " * 63]), abs=1e-5)


def test_a_batch_that_cannot_be_scored_fails_alone(llama):
    directory, model = llama
    strange = sample("the", ids=[3, 999])
    (outcomes,) = score(directory, [strange, sample("the film"), sample("", ids=[])], reads="tokens", batch_size=1)
    assert [getattr(outcome, "kind", None) for outcome in outcomes] == ["raised", None, "raised"]
    assert outcomes[1] == pytest.approx(plain_scores(model, ["the film"])[0], abs=1e-5)


def test_an_output_that_is_not_finite_is_not_a_number(tmp_path):
    model = save_model(tmp_path)
    model.score.weight.data.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    (outcomes,) = score(tmp_path, [sample("the film")])
    assert isinstance(outcomes[0], Failure)
    assert outcomes[0].kind == "not_a_number"


def test_a_slow_model_times_out(llama):
    directory, _ = llama
    (outcomes,) = score(directory, [sample("the film")], time_limit_s=1e-9)
    assert outcomes[0].kind == "timed_out"


def test_a_path_that_is_no_reward_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere.*config\.json"):
        score(tmp_path / "nowhere", [])
    save_model(tmp_path, num_labels=2)
    with pytest.raises(ModelError, match="has 2 outputs"):
        score(tmp_path, [])
