"""Algorithms of preferences on a real learner rank: the loss is that of a plain forward, and pairs are learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlhf_cluster.algorithms import DPO, KTO, ORPO, SFT, Algorithm, RewardModel, SimPO
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import Batch, RolloutGroup
from rlhf_cluster.testing import make_group, save_tiny_model, save_tiny_tokenizer
from rlhf_cluster.weights.memory import MemoryTransport

LENGTHS = [(3, 7), (5, 2), (1, 4), (6, 6)]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    save_tiny_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def pairs(model_path) -> tuple[RolloutGroup, ...]:
    """Recorded pairs, the second and the fourth won by their second completion, with real reference logprobs."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path)
    made = []
    for number, lengths in enumerate(LENGTHS):
        group = make_group(lengths, request_id=number)
        rewards = np.array([1, 0] if number % 2 == 0 else [0, 1], dtype=np.float32)
        with torch.no_grad():
            reference = torch.cat(plain_logprobs(model, group)).numpy()
        made.append(replace(group, rewards=rewards, reference_logprobs=reference, versions=np.zeros(0, np.int32)))
    return tuple(made)


def plain_logprobs(model, group: RolloutGroup) -> list[torch.Tensor]:
    """Of each completion alone, as transformers runs the model."""
    prompt = torch.from_numpy(group.prompt.token_ids.astype(np.int64))
    found = []
    for tokens in group.completions():
        ids = torch.cat([prompt, torch.from_numpy(tokens.astype(np.int64))])
        logprobs = model(ids[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        found.append(logprobs.gather(-1, ids[len(prompt) :, None])[:, 0])
    return found


def open_rank(model_path, algorithm: Algorithm, **settings) -> LearnerRank:
    optimizer = OptimizerSettings(lr=3e-3, warmup_steps=0)
    spec = LearnerSpec(
        settings=LearnerSettings(precision="fp32", optimizer=optimizer, **settings),
        model_path=model_path,
        temperature=1.0,
        num_steps=100,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=np.arange(2, 14, dtype=np.int32),
        probe_tolerance=1e-3,
        model=algorithm.model,
    )
    return LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def losses(model_path, algorithm: Algorithm, groups, *, num_steps: int, **settings) -> list[dict[str, float]]:
    rank = open_rank(model_path, algorithm, **settings)
    credited = algorithm.credit(groups)
    return [rank.update(algorithm, Batch(step=step, groups=credited)).metrics for step in range(num_steps)]


def test_the_loss_of_dpo_is_that_of_a_plain_forward(model_path, pairs):
    from transformers import AutoModelForCausalLM

    shifted = [
        replace(pair, reference_logprobs=pair.reference_logprobs - 0.1 * number) for number, pair in enumerate(pairs)
    ]
    model = AutoModelForCausalLM.from_pretrained(model_path)
    expected = []
    for pair in shifted:
        references = np.split(pair.reference_logprobs, [pair.lengths[0]])
        ratios = [
            (logprobs.sum() - reference.sum()).item()
            for logprobs, reference in zip(plain_logprobs(model, pair), references, strict=True)
        ]
        h = ratios[pair.rewards.argmax()] - ratios[pair.rewards.argmin()]
        expected.append(np.log1p(np.exp(-0.5 * h)))
    (first,) = losses(model_path, DPO(beta=0.5), shifted, num_steps=1)
    assert first["learner/loss"] == pytest.approx(np.mean(expected), abs=1e-5)


@pytest.mark.parametrize(
    "algorithm", [DPO(beta=0.5), KTO(beta=0.5), ORPO(), SimPO(), RewardModel()], ids=lambda a: a.type
)
def test_pairs_are_learned_and_microbatches_change_no_loss(model_path, pairs, algorithm):
    story = losses(model_path, algorithm, pairs, num_steps=12)
    divided = losses(model_path, algorithm, pairs, num_steps=2, microbatch_tokens=16)
    assert story[-1]["learner/loss"] < story[0]["learner/loss"]
    assert story[-1]["learner/accuracy"] == 1.0
    assert story[-1]["learner/margin"] > story[0]["learner/margin"]
    for whole, parts in zip(story, divided, strict=False):
        assert parts["learner/loss"] == pytest.approx(whole["learner/loss"], abs=1e-4)


@pytest.mark.parametrize("algorithm", [DPO(), KTO()], ids=lambda a: a.type)
def test_a_policy_that_is_its_reference_begins_without_a_margin(model_path, pairs, algorithm):
    (first,) = losses(model_path, algorithm, pairs, num_steps=1)
    assert first["learner/margin"] == pytest.approx(0.0, abs=1e-5)
    assert first["learner/loss"] == pytest.approx(np.log(2) if algorithm.type == "dpo" else 0.5, abs=1e-5)


def classified(model_path, group: RolloutGroup) -> torch.Tensor:
    """Scores as transformers gives them, of all completions at once with padding on the right."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(model_path)
    rows = [[*group.prompt.token_ids.tolist(), *tokens.tolist()] for tokens in group.completions()]
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[model.config.pad_token_id] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        return model(ids, attention_mask=mask).logits[:, 0]


def test_a_reward_model_that_was_saved_scores_in_transformers_as_the_learner_does(model_path, pairs, tmp_path):
    algorithm = RewardModel()
    rank = open_rank(model_path, algorithm, microbatch_tokens=32)
    for step in range(3):
        rank.update(algorithm, Batch(step=step, groups=algorithm.credit(pairs)))
    rank.snapshot(with_state=True).write(tmp_path)
    for group in rank.score(pairs):
        assert np.ptp(group.rewards) > 1e-2
        assert group.rewards == pytest.approx(classified(tmp_path, group).numpy(), abs=1e-5)
    other = open_rank(model_path, algorithm)
    other.load(tmp_path)
    again = [each.update(algorithm, Batch(step=3, groups=algorithm.credit(pairs))) for each in (rank, other)]
    assert again[0].metrics["learner/loss"] == pytest.approx(again[1].metrics["learner/loss"], abs=1e-6)


def test_only_the_head_and_the_last_layers_of_a_reward_model_move_when_told_so(model_path, pairs):
    rank = open_rank(model_path, RewardModel(), train_last_layers=1)
    before = {name: each.detach().clone() for name, each in rank.network.exported.named_parameters()}
    rank.update(RewardModel(), Batch(step=0, groups=RewardModel().credit(pairs)))
    moved = {name for name, each in rank.network.exported.named_parameters() if not torch.equal(each, before[name])}
    assert {"score.weight", "model.norm.weight"} <= moved
    assert all(name.startswith(("model.layers.1.", "model.norm", "score")) for name in moved)


@pytest.mark.parametrize("algorithm", [DPO(beta=0.5), ORPO(), RewardModel()], ids=lambda a: a.type)
@pytest.mark.parametrize("settings", [{"packing": "padded"}, {"microbatch_tokens": 16}], ids=str)
def test_no_layout_divides_a_pair_or_changes_what_is_learned(model_path, pairs, algorithm, settings):
    expected = losses(model_path, algorithm, pairs, num_steps=2)
    found = losses(model_path, algorithm, pairs, num_steps=2, **settings)
    for whole, parts in zip(expected, found, strict=True):
        assert parts["learner/loss"] == pytest.approx(whole["learner/loss"], rel=1e-4)
        assert parts["learner/grad_norm"] == pytest.approx(whole["learner/grad_norm"], rel=1e-3)


def test_what_is_assessed_is_the_loss_of_the_step_that_would_follow_and_changes_nothing(model_path, pairs):
    for algorithm in (DPO(beta=0.5), RewardModel()):
        rank, credited = open_rank(model_path, algorithm), algorithm.credit(pairs)
        figures = rank.assess(algorithm, credited)
        assert rank.assess(algorithm, credited) == figures
        report = rank.update(algorithm, Batch(step=0, groups=credited))
        assert {name: report.metrics[name] for name in figures} == pytest.approx(figures, abs=1e-6)


def test_tokens_outside_of_the_loss_mask_pull_at_nothing(model_path, pairs):
    """A chat of two turns: what the user says between is read and not learned."""
    from transformers import AutoModelForCausalLM

    group = pairs[0]
    mask = np.ones(group.num_tokens, bool)
    mask[[1, 4, 5]] = False
    masked = replace(group, loss_mask=mask)
    model = AutoModelForCausalLM.from_pretrained(model_path)
    loss = -torch.cat(plain_logprobs(model, group))[torch.from_numpy(mask)].mean()
    loss.backward()
    norm = torch.stack([each.grad.norm() for each in model.parameters()]).norm()
    (first,) = losses(model_path, SFT(), (masked,), num_steps=1)
    assert first["learner/loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert first["learner/grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
