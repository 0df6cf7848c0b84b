"""Low-rank adapters on a real learner rank: what moves, what is published, what a checkpoint holds, and what stays
equal when activations are computed twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf_cluster.algorithms import GRPO, RewardModel
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.models.load import load_causal_lm, load_reward_model
from rlhf_cluster.models.lora import is_adapter
from rlhf_cluster.models.settings import LoraSettings
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import make_group, save_tiny_model, save_tiny_tokenizer
from rlhf_cluster.weights.flat import unflatten, verify
from rlhf_cluster.weights.memory import MemoryTransport

PROBE = np.arange(2, 14, dtype=np.int32)
LORA = LoraSettings(rank=4)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """Its dropout is not to be noticed."""
    from transformers import AutoConfig

    path = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    config = AutoConfig.from_pretrained(path)
    config.attention_dropout = 0.5
    config.save_pretrained(path)
    save_tiny_tokenizer(path)
    return path


def open_rank(model_path, *, model="policy", num_steps: int = 10, lora=LORA, **settings) -> LearnerRank:
    settings = {"precision": "fp32", "optimizer": OptimizerSettings(lr=1e-2), **settings}
    spec = LearnerSpec(
        settings=LearnerSettings(lora=lora, **settings),
        model_path=model_path,
        temperature=1.0,
        num_steps=num_steps,
        seed=0,
        serving_dtype="bfloat16" if settings["precision"] == "bf16" else "float32",
        probe_token_ids=PROBE,
        probe_tolerance=1e-3,
        model=model,
    )
    return LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def batch(step: int = 0) -> Batch:
    return Batch(step=step, groups=tuple(make_group([5, 9, 3], request_id=step * 3 + n) for n in range(3)))


def pairs() -> Batch:
    rewards = np.array([1.0, 0.0], dtype=np.float32)
    made = [replace(make_group([5, 7], request_id=number), rewards=rewards) for number in range(3)]
    return Batch(step=0, groups=tuple(RewardModel().credit(made)))


def state_of(network) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def logprobs(model) -> np.ndarray:
    ids = torch.from_numpy(PROBE.astype(np.int64))
    with torch.no_grad():
        return model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0].float().numpy()


def saved(rank: LearnerRank, directory: Path, *, with_state: bool = True) -> Path:
    directory.mkdir()
    rank.snapshot(with_state=with_state).write(directory)
    return directory


@pytest.mark.parametrize(
    ("model", "algorithm", "learned", "beside"),
    [
        ("policy", GRPO(), batch, ()),
        ("policy_and_critic", GRPO(), batch, ("critic.head",)),
        ("reward_model", RewardModel(), pairs, ("classifier.score",)),
    ],
    ids=["policy", "critic", "reward model"],
)
def test_only_adapters_and_new_heads_are_trained(model_path, model, algorithm, learned, beside):
    rank = open_rank(model_path, model=model)
    before = state_of(rank.network)
    trained = {name for name, parameter in rank.network.named_parameters() if parameter.requires_grad}
    assert {name.rpartition(".")[0] for name in trained if not is_adapter(name)} == set(beside)
    rank.update(algorithm, learned())
    moved = {name for name, parameter in rank.network.named_parameters() if not torch.equal(parameter, before[name])}
    # A moves from the second step on: until then B is zero. No loss here is of the critic.
    assert {name for name in moved if not name.startswith("critic.")} == {
        name for name in trained if "lora_A" not in name and not name.startswith("critic.")
    }


def test_adapters_in_the_last_layers_alone(model_path):
    rank = open_rank(model_path, train_last_layers=1)
    trained = [name for name, parameter in rank.network.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 7
    assert all("layers.1." in name and is_adapter(name) for name in trained)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_published_is_a_plain_model_and_its_probe_that_of_these_bytes(model_path, precision):
    rank = open_rank(model_path, precision=precision)
    for step in range(2):
        rank.update(GRPO(), batch(step))
    handle = rank.publish()
    verify(handle.manifest, handle.location)
    plain = AutoModelForCausalLM.from_pretrained(model_path).eval()
    assert [spec.name for spec in handle.manifest.tensors] == [name for name, _ in plain.named_parameters()]
    plain.load_state_dict(dict(unflatten(handle.manifest, handle.location)), strict=False)
    exact = precision == "fp32"
    np.testing.assert_allclose(handle.probe.logprobs, logprobs(plain), atol=1e-5 if exact else 0.1)
    # The learner itself, whose adapters are not merged, says the same.
    with torch.autocast("cpu", torch.bfloat16, enabled=not exact):
        own = logprobs(rank.network.language_model)
    np.testing.assert_allclose(own, logprobs(plain), atol=1e-4 if exact else 0.3)


def test_frozen_weights_need_two_bytes_where_the_arithmetic_does(model_path):
    rank = open_rank(model_path, precision="bf16")
    dtypes = {is_adapter(name): parameter.dtype for name, parameter in rank.network.named_parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_a_checkpoint_holds_the_adapters_alone_until_the_last_which_holds_the_merged_model_too(model_path, tmp_path):
    rank = open_rank(model_path, num_steps=2)
    rank.update(GRPO(), batch(0))
    first = saved(rank, tmp_path / "first")
    assert not any(first.glob("*.safetensors"))
    rank.update(GRPO(), batch(1))
    last = saved(rank, tmp_path / "last")
    handle = rank.publish()
    expected = dict(unflatten(handle.manifest, handle.location))
    for name, parameter in AutoModelForCausalLM.from_pretrained(last).named_parameters():
        assert torch.equal(parameter, expected[name]), name
    theirs = peft.PeftModel.from_pretrained(load_causal_lm(model_path, dtype=torch.float32), str(last / "adapter"))
    np.testing.assert_allclose(logprobs(theirs), handle.probe.logprobs, atol=1e-4)
    np.testing.assert_allclose(logprobs(load_causal_lm(last, dtype=torch.float32)), handle.probe.logprobs, atol=1e-4)
    assert not any(
        saved(open_rank(model_path, lora=LoraSettings(export="adapter"), num_steps=0), tmp_path / "small").glob(
            "*.safetensors"
        )
    )


def test_a_checkpoint_of_adapters_is_a_model_to_begin_from(model_path, tmp_path):
    rank = open_rank(model_path)
    for step in range(2):
        rank.update(GRPO(), batch(step))
    handle = rank.publish()
    checkpoint = saved(rank, tmp_path / "checkpoint")
    for again in (open_rank(checkpoint), open_rank(checkpoint, lora=None)):
        np.testing.assert_allclose(again.publish().probe.logprobs, handle.probe.logprobs, atol=1e-4)


def test_a_reward_model_is_served_from_its_adapters(model_path, tmp_path):
    rank = open_rank(model_path, model="reward_model")
    for _ in range(2):
        rank.update(RewardModel(), pairs())
    [group, *_] = rank.score(pairs().groups)
    model, _ = load_reward_model(saved(rank, tmp_path / "saved"), dtype="float32")
    tokens = np.concatenate([group.prompt.token_ids, next(iter(group.completions()))]).astype(np.int64)
    with torch.no_grad():
        assert model(torch.from_numpy(tokens)[None]).logits.item() == pytest.approx(float(group.rewards[0]), abs=1e-4)


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "adapters"])
@pytest.mark.parametrize("model", ["policy", "policy_and_critic", "reward_model"])
def test_computing_activations_twice_changes_no_gradient(model_path, model, lora):
    kept, again = (
        open_rank(model_path, model=model, lora=lora, gradient_checkpointing=twice) for twice in (False, True)
    )
    for rank in (kept, again):
        with torch.no_grad():
            for name, parameter in rank.network.named_parameters():
                if "lora_B" in name or name == "critic.head.weight":
                    torch.manual_seed(7)
                    parameter.normal_(std=0.1)
        total = torch.zeros(())
        for microbatch, _ in rank._layout.microbatches(pairs().groups, whole_groups=False):
            outputs = rank.network(microbatch)
            total = total + sum(each.square().sum() for each in outputs if each is not None)
        total.backward()
    found = dict(again.network.named_parameters())
    for name, parameter in kept.network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            torch.testing.assert_close(found[name].grad, parameter.grad, msg=name)
