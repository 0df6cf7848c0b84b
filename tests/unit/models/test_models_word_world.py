import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_cluster.data.word_world import rows, vocabulary
from rlhf_cluster.models.word_world import Recipe, build_model, build_tokenizer, demonstration_batches, fit, make

SHORT = Recipe(num_steps=3, batch_size=4)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("word-world")
    make(path, recipe=SHORT)
    return path


def test_transformers_loads_what_was_saved(directory):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    assert model.dtype == torch.float32
    assert 330_000 < model.num_parameters() < 370_000
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == ("<pad>", "<bos>", "<eos>")
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id
    inputs = tokenizer(rows(num_rows=1)[0]["prompt"], return_tensors="pt", return_token_type_ids=False)
    assert inputs["input_ids"][0, 0] == tokenizer.bos_token_id
    assert model.generate(**inputs, max_new_tokens=3).shape[1] > inputs["input_ids"].shape[1]


def test_the_same_recipe_gives_the_same_weights(directory, tmp_path):
    make(tmp_path, recipe=SHORT)
    assert (tmp_path / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()


def test_building_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model(SHORT)
    assert torch.equal(torch.rand(3), expected)


def test_every_word_has_its_own_token_and_survives_decoding():
    tokenizer = build_tokenizer()
    text = " ".join(vocabulary())
    token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(set(token_ids)) == len(vocabulary())
    assert tokenizer.unk_token_id not in token_ids
    assert tokenizer.decode(token_ids) == text


def test_batches_hold_whole_demonstrations():
    tokenizer = build_tokenizer()
    batches = list(demonstration_batches(tokenizer, SHORT))
    assert len(batches) == SHORT.num_steps
    for batch in batches:
        ends_B = batch.prompt_lengths + batch.completion_lengths
        assert batch.token_ids.shape == (SHORT.batch_size, ends_B.max())
        for token_ids_T, end in zip(batch.token_ids, ends_B, strict=True):
            assert token_ids_T[end - 1] == tokenizer.eos_token_id
            assert np.all(token_ids_T[end:] == tokenizer.pad_token_id)


def test_teaching_lowers_the_loss():
    recipe = Recipe(num_steps=12, batch_size=16)
    model, batches = build_model(recipe), list(demonstration_batches(build_tokenizer(), recipe))
    untaught = fit(build_model(recipe), batches[:1], recipe=recipe)
    assert fit(model, batches, recipe=recipe) < 0.7 * untaught


def test_the_digest_follows_the_recipe():
    assert Recipe().digest() == Recipe().digest()
    assert Recipe().digest() != Recipe(num_steps=1).digest()
