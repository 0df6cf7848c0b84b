"""A directory becomes a model, or one message says why not."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rlhf_cluster.errors import ModelError
from rlhf_cluster.models.load import load_causal_lm, load_tokenizer, max_context
from rlhf_cluster.testing import save_tiny_model


@pytest.fixture
def model_path(tmp_path):
    return save_tiny_model(tmp_path / "tiny")


def refusal(load) -> str:
    with pytest.raises(ModelError) as raised:
        load()
    assert "\n" not in str(raised.value), "one line"
    return str(raised.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_comes_in_eval_mode_and_in_the_dtype_asked_for(model_path, dtype):
    model = load_causal_lm(model_path, dtype=dtype)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_threads_that_load_at_once_all_get_a_whole_model(model_path):
    with ThreadPoolExecutor(4) as threads:
        models = threads.map(lambda _: load_causal_lm(model_path, dtype=torch.float32), range(24))
        assert all(model.get_output_embeddings().weight is model.get_input_embeddings().weight for model in models)
    assert not any(parameter.is_meta for parameter in load_causal_lm(model_path, dtype=torch.float32).parameters())


def test_the_context_is_the_models(model_path):
    assert max_context(model_path) == 256


def test_an_empty_directory_is_no_model(tmp_path):
    assert str(tmp_path) in refusal(lambda: load_causal_lm(tmp_path, dtype=torch.float32))
    assert str(tmp_path) in refusal(lambda: load_tokenizer(tmp_path))
    assert str(tmp_path) in refusal(lambda: max_context(tmp_path))


def test_a_truncated_weights_file_is_named(model_path):
    file = model_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert str(model_path) in refusal(lambda: load_causal_lm(model_path, dtype=torch.float32))


def test_weights_of_another_shape_are_named(model_path):
    config = json.loads((model_path / "config.json").read_text())
    (model_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 32}))
    assert str(model_path) in refusal(lambda: load_causal_lm(model_path, dtype=torch.float32))


@pytest.mark.parametrize("content", ["{}", "[1]", "not json", '{"model_type": "never-heard-of"}'])
def test_a_config_that_is_none_is_named(model_path, content):
    (model_path / "config.json").write_text(content)
    assert str(model_path) in refusal(lambda: load_causal_lm(model_path, dtype=torch.float32))
    assert str(model_path) in refusal(lambda: max_context(model_path))


def test_code_in_the_directory_is_never_run(model_path):
    config = json.loads((model_path / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (model_path / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": auto_map}))
    (model_path / "evil.py").write_text("raise SystemExit('run')")
    assert str(model_path) in refusal(lambda: load_causal_lm(model_path, dtype=torch.float32))
