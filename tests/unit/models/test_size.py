"""A model's size from its headers, or one message."""

from __future__ import annotations

import json

import pytest

from rlhf_cluster.errors import ModelError
from rlhf_cluster.models.load import load_causal_lm
from rlhf_cluster.models.size import model_size
from rlhf_cluster.testing import save_tiny_model

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(("num_layers", "tied"), [(1, True), (3, False)])
def test_the_counts_are_those_of_the_loaded_model(tmp_path, num_layers, tied):
    path = save_tiny_model(tmp_path, num_layers=num_layers, tied=tied)
    model = load_causal_lm(path, dtype=torch.float32)
    size = model_size(path)
    assert size.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.layer_parameters == sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    assert (size.num_layers, size.hidden_size, size.vocab_size) == (num_layers, 64, 64)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "config.json").unlink(),
        lambda path: (path / "config.json").write_text("{}"),
        lambda path: (path / "config.json").write_text("[1]"),
        lambda path: (path / "model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not json"),
        lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 9),
        lambda path: (path / "model.safetensors").unlink(),
        lambda path: _set(path, num_hidden_layers=0),
    ],
    ids=["no config", "empty config", "list", "broken header", "huge header", "no weights", "no layers"],
)
def test_what_cannot_be_read_is_named(tmp_path, damage):
    path = save_tiny_model(tmp_path)
    damage(path)
    with pytest.raises(ModelError, match=str(tmp_path)):
        model_size(path)


def _set(path, **fields) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **fields}))
