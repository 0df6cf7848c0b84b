"""Adapters inside a model: nothing at first, W + scale B A when merged, and files that peft itself reads."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_cluster.errors import ConfigError, ModelError
from rlhf_cluster.models.adapter_files import CONFIG, FOLDER
from rlhf_cluster.models.export import export_checkpoint, export_policy
from rlhf_cluster.models.load import begin_reward_model, load_causal_lm, load_reward_model, load_trunk
from rlhf_cluster.models.lora import MergedWeights, attach, config_of, is_adapter, without_adapters, write_adapter
from rlhf_cluster.models.settings import LoraSettings
from rlhf_cluster.testing import save_tiny_model

TOKENS = torch.arange(2, 14)[None]
FP32 = torch.float32


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def adapted(path, *, load=load_causal_lm, moved: bool = True, trained_modules=(), **settings):
    """A model with adapters; `moved` ones say something, as after training."""
    model = load(path, dtype=FP32)
    attach(model, LoraSettings(rank=4, **settings), base=path, frozen_dtype=FP32, trained_modules=trained_modules)
    if moved:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def merged(model) -> dict[str, torch.Tensor]:
    return dict(MergedWeights(model.named_parameters(), config=config_of(model)))


def checkpoint(model, directory: Path, *, source: Path) -> Path:
    """As a job leaves it: the adapters, and all of a model but its weights."""
    directory.mkdir()
    export_policy(None, config=model.config, source=source, target=directory, dtype=FP32)
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    write_adapter(directory / FOLDER, trained, config=config_of(model))
    return directory


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(TOKENS).logits


def test_at_first_the_model_is_what_it_was_and_only_adapters_would_move(model_path):
    plain = AutoModelForCausalLM.from_pretrained(model_path)
    model = adapted(model_path, moved=False)
    assert torch.equal(logits(model), logits(plain))
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * 7  # A and B, two layers of seven matrices
    assert all(is_adapter(name) for name in trained)
    found = merged(model)
    assert list(found) == [name for name, _ in plain.named_parameters()]
    assert all(torch.equal(found[name], parameter) for name, parameter in plain.named_parameters())


@pytest.mark.parametrize(("rslora", "scale"), [(False, 32 / 4), (True, 32 / 2)])
def test_merged_weights_are_w_plus_scale_b_a(model_path, rslora, scale):
    model = adapted(model_path, rslora=rslora)
    matrix = model.model.layers[1].mlp.up_proj
    up, down = matrix.lora_B["default"].weight, matrix.lora_A["default"].weight
    found = merged(model)["model.layers.1.mlp.up_proj.weight"]
    torch.testing.assert_close(found, matrix.base_layer.weight + scale * up @ down)
    bare = without_adapters(model)
    assert all(parameter.is_meta for parameter in bare.parameters())
    given = torch.func.functional_call(bare, merged(model), (TOKENS,)).logits
    torch.testing.assert_close(given, logits(model), atol=1e-5, rtol=1e-4)


def test_tensors_are_merged_one_at_a_time_and_their_shapes_are_known_before(model_path):
    model = adapted(model_path)
    weights = MergedWeights(model.named_parameters(), config=config_of(model))
    assert weights.shapes == [tensor.shape for _, tensor in weights]
    assert iter(weights) is not weights
    assert not any(tensor.requires_grad for name, tensor in weights if name.endswith("proj.weight"))


def test_peft_reads_what_is_written_and_a_directory_without_weights_loads_as_the_merged_model(model_path, tmp_path):
    model = adapted(model_path)
    saved = checkpoint(model, tmp_path / "saved", source=model_path)
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_path), str(saved / FOLDER))
    torch.testing.assert_close(logits(theirs), logits(model), atol=1e-6, rtol=1e-6)
    ours = load_causal_lm(saved, dtype=FP32)
    expected = merged(model)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.data, expected[name], atol=1e-6, rtol=1e-6)
    trunk = load_trunk(saved, dtype=FP32)
    assert torch.equal(trunk.layers[0].mlp.up_proj.weight, ours.model.layers[0].mlp.up_proj.weight)


def test_adapters_may_be_for_a_model_that_is_adapters_itself(model_path, tmp_path):
    first = checkpoint(adapted(model_path), tmp_path / "first", source=model_path)
    base = load_causal_lm(first, dtype=FP32)
    attach(base, LoraSettings(rank=2), base=first, frozen_dtype=FP32)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if is_adapter(name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    second = checkpoint(base, tmp_path / "second", source=first)
    torch.testing.assert_close(logits(load_causal_lm(second, dtype=FP32)), logits(base), atol=1e-4, rtol=1e-4)


def test_a_reward_model_keeps_its_head_with_its_adapters(tmp_path, tokenizer_files):
    path = save_tiny_model(tmp_path / "model")
    tokenizer_files(path)
    model = adapted(path, load=begin_reward_model, trained_modules=("score",))
    saved = checkpoint(model, tmp_path / "saved", source=path)
    found, _ = load_reward_model(saved, dtype="float32")
    torch.testing.assert_close(logits(found), logits(model), atol=1e-4, rtol=1e-4)
    export_checkpoint(saved, tmp_path / "exported")
    exported = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported")
    torch.testing.assert_close(logits(exported), logits(model), atol=1e-4, rtol=1e-4)


def test_an_export_is_a_model_of_its_own_and_takes_no_place_of_another(model_path, tmp_path):
    model = adapted(model_path)
    saved = checkpoint(model, tmp_path / "saved", source=model_path)
    (saved / "MANIFEST.json").write_text("{}")
    export_checkpoint(saved, tmp_path / "exported")
    assert {file.name for file in (tmp_path / "exported").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    torch.testing.assert_close(logits(found), logits(model), atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match="is there already"):
        export_checkpoint(saved, tmp_path / "exported")
    export_checkpoint(saved / FOLDER, tmp_path / "from adapters alone")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "from adapters alone")), logits(found))


def test_adapters_whose_model_is_gone_say_so(model_path, tmp_path):
    saved = checkpoint(adapted(model_path), tmp_path / "saved", source=model_path)
    file = saved / FOLDER / CONFIG
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "/nowhere/base"}))
    with pytest.raises(ModelError, match=r"for the model /nowhere/base, .* base_model_name_or_path of"):
        load_causal_lm(saved, dtype=FP32)


def test_dropout_is_there_while_a_gradient_is_wanted_and_never_in_a_prediction(model_path):
    model = adapted(model_path, dropout=0.5)
    assert torch.equal(logits(model), logits(model))
    first, second = model(TOKENS).logits, model(TOKENS).logits
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ("q_proj", "query")}, r"names 'query', .*k_proj, o_proj, q_proj, up_proj, v_proj"),
        ({"target_modules": ("lm_head",)}, r"names 'lm_head'"),
        ({"modules_to_save": ("embed_tokens",)}, r"both embedding and head"),
        ({"modules_to_save": ("head",)}, r"no such module"),
    ],
    ids=["unknown", "head", "tied", "unknown module"],
)
def test_modules_that_cannot_be_trained_are_named(model_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        adapted(model_path, **settings)


def test_modules_trained_whole_travel_with_the_adapters(model_path, tmp_path):
    model = adapted(model_path, modules_to_save=("model.norm",), target_modules=("q_proj",))
    saved = checkpoint(model, tmp_path / "saved", source=model_path)
    torch.testing.assert_close(logits(load_causal_lm(saved, dtype=FP32)), logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_four_bits_are_refused_without_a_gpu(model_path):
    with pytest.raises(ConfigError, match=r"learner.lora.quantise = .*no GPU: set it to \"none\""):
        load_causal_lm(model_path, dtype=torch.bfloat16, quantise="nf4")
