"""The learner rank against a plain Hugging Face forward and against itself in other shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhf_cluster.algorithms import GRPO
from rlhf_cluster.errors import LearnerError
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import make_group, save_tiny_model
from rlhf_cluster.weights.flat import unflatten, verify
from rlhf_cluster.weights.memory import MemoryTransport

PROBE = np.arange(2, 14, dtype=np.int32)
LENGTHS = [(3, 7, 1, 12), (5, 5, 9, 2), (20, 1, 1, 8), (4, 4)]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def open_rank(model_path, *, temperature=1.0, **settings) -> LearnerRank:
    optimizer = OptimizerSettings(lr=settings.pop("lr", 1e-3))
    spec = LearnerSpec(
        settings=LearnerSettings(precision="fp32", optimizer=optimizer, **settings),
        model_path=model_path,
        temperature=temperature,
        num_steps=10,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=PROBE,
        probe_tolerance=1e-3,
    )
    return LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def batch(step: int = 0) -> Batch:
    groups = [
        make_group(lengths, request_id=number, num_prompt_tokens=3 + number) for number, lengths in enumerate(LENGTHS)
    ]
    return Batch(step=step, groups=tuple(groups))


def gradients(rank: LearnerRank, algorithm: GRPO) -> dict[str, torch.Tensor]:
    """Those of one batch, before the optimizer clears them."""
    kept = {}
    step = rank.backend.step

    def keep_then_step(**arguments):
        kept.update({n: p.grad.clone() for n, p in rank.network.named_parameters() if p.grad is not None})
        return step(**arguments)

    rank.backend.step = keep_then_step
    rank.update(algorithm, batch())
    return kept


def plain_loss(model, algorithm: GRPO, groups) -> torch.Tensor:
    """The same loss the slow way: one completion at a time through the model as transformers runs it."""
    weights = algorithm.token_weights(groups)
    total = torch.zeros(())
    for group, weights_N in zip(groups, weights, strict=True):
        ends = np.cumsum(group.lengths)
        for tokens, end in zip(group.completions(), ends, strict=True):
            at = slice(end - len(tokens), end)
            ids = torch.from_numpy(np.concatenate([group.prompt.token_ids, tokens]).astype(np.int64))
            logprobs = model(ids[None]).logits[0, len(group.prompt.token_ids) - 1 : -1].log_softmax(-1)
            chosen = logprobs.gather(-1, ids[len(group.prompt.token_ids) :, None])[:, 0]
            weight = (chosen.detach() - torch.from_numpy(group.logprobs[at])).exp().clamp(max=2.0)
            ratio = (chosen - chosen.detach()).exp()
            losses = -weight * ratio * torch.from_numpy(group.advantages[at])
            total = total + (torch.from_numpy(weights_N[at]) * losses).sum()
    return total / algorithm.normaliser(groups)


def test_loss_and_gradient_are_those_of_a_plain_padless_forward(model_path):
    from transformers import AutoModelForCausalLM

    algorithm = GRPO()
    model = AutoModelForCausalLM.from_pretrained(model_path)
    loss = plain_loss(model, algorithm, batch().groups)
    loss.backward()
    expected = {f"language_model.{name}": p.grad for name, p in model.named_parameters()}
    rank = open_rank(model_path)
    report = open_rank(model_path).update(algorithm, batch())
    found = gradients(rank, algorithm)
    assert report.metrics["learner/loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{"packing": "padded"}, {"microbatch_tokens": 16}, {"max_row_tokens": 16}, {"gradient_checkpointing": True}],
    ids=lambda settings: next(iter(settings)),
)
def test_gradient_does_not_depend_on_how_the_batch_is_laid_out(model_path, settings):
    expected = gradients(open_rank(model_path), GRPO())
    found = gradients(open_rank(model_path, **settings), GRPO())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_padding_rows_of_a_microbatch_change_nothing(model_path):
    alone = open_rank(model_path, microbatch_tokens=16).update(GRPO(), batch())
    together = open_rank(model_path, microbatch_tokens=4096).update(GRPO(), batch())
    assert alone.metrics["learner/loss"] == pytest.approx(together.metrics["learner/loss"], abs=1e-6)
    assert alone.metrics["learner/grad_norm"] == pytest.approx(together.metrics["learner/grad_norm"], rel=1e-5)


def test_only_the_last_layers_move_when_told_so(model_path):
    rank = open_rank(model_path, train_last_layers=1)
    before = {name: p.detach().clone() for name, p in rank.network.language_model.named_parameters()}
    rank.update(GRPO(), batch())
    moved = {n for n, p in rank.network.language_model.named_parameters() if not torch.equal(p, before[n])}
    assert all(name.startswith(("model.layers.1.", "model.norm")) for name in moved)
    assert len(moved) > 5


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_publish_hands_over_the_weights_it_holds_with_its_own_probe_at_temperature_1(model_path, temperature):
    rank = open_rank(model_path, temperature=temperature)
    rank.update(GRPO(), batch())
    handle = rank.publish()
    assert handle.version == 1
    verify(handle.manifest, handle.location)
    held = dict(rank.network.language_model.named_parameters())
    for name, tensor in unflatten(handle.manifest, handle.location):
        assert torch.equal(tensor, held[name])
    with torch.no_grad():
        ids = torch.from_numpy(PROBE.astype(np.int64))
        logprobs = rank.network.language_model(ids[None]).logits[0, :-1].log_softmax(-1).gather(-1, ids[1:, None])
    np.testing.assert_allclose(handle.probe.logprobs, logprobs[:, 0].numpy(), atol=1e-5)


def test_a_published_version_does_not_change_when_training_goes_on(model_path):
    rank = open_rank(model_path)
    handle = rank.publish()
    rank.update(GRPO(), batch())
    verify(handle.manifest, handle.location)


def test_nothing_is_applied_when_the_loss_is_not_finite(model_path):
    rank = open_rank(model_path)
    before = rank.publish().manifest.fingerprint
    poisoned = batch()
    poisoned.groups[0].advantages[0] = np.nan
    with pytest.raises(LearnerError, match="step 0: the loss is nan; the step was not applied"):
        rank.update(GRPO(), poisoned)
    assert rank.version == 0
    assert rank.publish().manifest.fingerprint == before
    rank.update(GRPO(), batch())
    assert np.isfinite(rank.publish().probe.logprobs).all()


def test_saved_policy_loads_in_transformers_with_the_same_weights(model_path, tmp_path):
    from transformers import AutoModelForCausalLM

    rank = open_rank(model_path)
    rank.update(GRPO(), batch())
    rank.snapshot(with_state=False).write(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for (name, parameter), (_, own) in zip(
        loaded.named_parameters(), rank.network.language_model.named_parameters(), strict=True
    ):
        assert torch.equal(parameter, own), name


def test_going_on_from_saved_state_equals_never_having_stopped(model_path, tmp_path):
    unbroken = open_rank(model_path)
    expected = [unbroken.update(GRPO(), batch(step)).metrics["learner/loss"] for step in range(4)]
    first, second = open_rank(model_path), open_rank(model_path)
    losses = [first.update(GRPO(), batch(step)).metrics["learner/loss"] for step in range(2)]
    first.snapshot(with_state=True).write(tmp_path)
    second.load(tmp_path)
    losses += [second.update(GRPO(), batch(step)).metrics["learner/loss"] for step in range(2, 4)]
    assert losses == expected
    assert second.publish().manifest.fingerprint == unbroken.publish().manifest.fingerprint


def test_a_step_counts_every_token_once_whatever_the_microbatches(model_path):
    rank = open_rank(model_path, microbatch_tokens=16)
    rank.update(GRPO(), batch())
    assert rank.tokens_total == batch().num_tokens
    rank.update(GRPO(), batch(1))
    assert rank.tokens_total == 2 * batch().num_tokens
