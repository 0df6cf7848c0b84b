"""What is exported loads again with the same weights, in one file or in several."""

from __future__ import annotations

import json

import pytest
import torch

from rlhf_cluster.driver.checkpoint_manifest import seal, verify
from rlhf_cluster.models.export import export_policy
from rlhf_cluster.models.load import load_causal_lm
from rlhf_cluster.models.size import model_size
from rlhf_cluster.testing import save_tiny_model


@pytest.fixture
def source(tmp_path):
    path = save_tiny_model(tmp_path / "source")
    (path / "tokenizer.json").write_text("{}")
    (path / "pytorch_model.bin").write_text("old weights")
    return path


def export(source, target, *, dtype=torch.float32, **options):
    model = load_causal_lm(source, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    target.mkdir()
    export_policy(model.named_parameters(), config=model.config, source=source, target=target, dtype=dtype, **options)
    return model


@pytest.mark.parametrize("max_shard_bytes", [4 * 2**30, 30_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_export_loads_with_the_weights_it_was_given(source, tmp_path, dtype, max_shard_bytes):
    target = tmp_path / "target"
    model = export(source, target, dtype=dtype, max_shard_bytes=max_shard_bytes)
    loaded = dict(load_causal_lm(target, dtype=dtype).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded[name], parameter.to(dtype)), name


def test_several_files_have_an_index_that_names_each_tensor_once(source, tmp_path):
    target = tmp_path / "target"
    model = export(source, target, max_shard_bytes=30_000)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    names = [name for name, _ in model.named_parameters()]
    assert sorted(index["weight_map"]) == sorted(names)
    assert index["metadata"]["total_size"] == sum(parameter.nbytes for parameter in model.parameters())
    files = set(index["weight_map"].values())
    assert len(files) > 1
    assert files == {file.name for file in target.glob("*.safetensors")}
    assert model_size(target) == model_size(source)


def test_what_is_true_of_the_source_alone_is_left_there(source, tmp_path):
    checkpoint = source.rename(tmp_path / "step-000001")
    (checkpoint / "lineage.json").write_text("{}")
    (checkpoint / "driver_state.json").write_text("{}")
    seal(checkpoint, step=1, epoch=1)
    target = tmp_path / "step-000002"
    export(checkpoint, target)
    assert not {"MANIFEST.json", "lineage.json", "driver_state.json"} & {file.name for file in target.iterdir()}
    seal(target, step=2, epoch=1)
    verify(target)


def test_everything_but_weights_is_taken_along(source, tmp_path):
    export(source, tmp_path / "target")
    names = {file.name for file in (tmp_path / "target").iterdir()}
    assert "tokenizer.json" in names
    assert "pytorch_model.bin" not in names
    assert json.loads((tmp_path / "target" / "config.json").read_text())["dtype"] == "float32"
