"""What engines read out of a model directory."""

from __future__ import annotations

import json

import pytest

from rlhf_cluster.errors import ModelError
from rlhf_cluster.rollout.engines.checkpoint import (
    end_of_sequence_ids,
    parameter_shapes,
    resolve_context,
    resolve_dtype,
)


@pytest.fixture
def write(tmp_path):
    def write(config: dict, generation: dict | None = None):
        (tmp_path / "config.json").write_text(json.dumps(config))
        if generation is not None:
            (tmp_path / "generation_config.json").write_text(json.dumps(generation))
        return tmp_path

    return write


def test_directory_without_config_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"no model directory: config\.json is missing"):
        resolve_dtype("auto", tmp_path)


@pytest.mark.parametrize(
    ("config", "dtype"), [({"dtype": "bfloat16"}, "bfloat16"), ({"torch_dtype": "float16"}, "float16"), ({}, "float32")]
)
def test_auto_precision_is_that_of_the_checkpoint(write, config, dtype):
    assert resolve_dtype("auto", write(config)) == dtype
    assert resolve_dtype("float32", write(config)) == "float32"


@pytest.mark.parametrize(
    ("config", "generation", "ids"),
    [
        ({"eos_token_id": 2}, None, (2,)),
        ({"eos_token_id": 2}, {"eos_token_id": [7, 2]}, (2, 7)),
        ({"eos_token_id": None}, {"eos_token_id": 0}, (0,)),
        ({}, {}, ()),
    ],
)
def test_end_of_sequence_ids_come_from_both_files(write, config, generation, ids):
    assert end_of_sequence_ids(write(config, generation)) == ids


def test_context_is_what_was_asked_within_the_positions_of_the_model(write):
    path = write({"max_position_embeddings": 512})
    assert resolve_context(None, path) == 512
    assert resolve_context(100, path) == 100
    with pytest.raises(ModelError, match=r"max_context = 513 is more than the 512 positions.*set it to 512 or less"):
        resolve_context(513, path)


def test_context_of_a_model_without_positions_must_be_set(write):
    path = write({})
    assert resolve_context(64, path) == 64
    with pytest.raises(ModelError, match="set max_context"):
        resolve_context(None, path)


def test_a_tied_head_is_named_once(write):
    config = {
        "model_type": "llama",
        "vocab_size": 32,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    tied = parameter_shapes(write({**config, "tie_word_embeddings": True}))
    untied = parameter_shapes(write({**config, "tie_word_embeddings": False}))
    assert tied["model.embed_tokens.weight"] == (32, 16)
    assert untied.keys() - tied.keys() == {"lm_head.weight"}
