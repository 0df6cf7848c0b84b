"""A critic beside the policy, on a real rank: several updates of a batch, its own rate, and the way back from disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlhf_cluster.algorithms import PPO, TokenColumns
from rlhf_cluster.learner.minibatches import minibatches
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.learner.settings import CriticSettings, LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import Batch, RolloutGroup
from rlhf_cluster.testing import make_group, save_tiny_model
from rlhf_cluster.weights.memory import MemoryTransport

LENGTHS = [(3, 7), (5, 2, 4), (1, 4), (6,)]
SEVERAL = PPO(kl_coef=0.1, num_epochs=2, num_minibatches=2, value_coef=0.5)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def open_rank(model_path, *, trunk: str = "own", critic_lr: float | None = None, **settings) -> LearnerRank:
    spec = LearnerSpec(
        settings=LearnerSettings(
            precision="fp32",
            optimizer=OptimizerSettings(lr=1e-3, max_grad_norm=1e9),
            critic=CriticSettings(trunk=trunk, lr=critic_lr),
            **settings,
        ),
        model_path=model_path,
        temperature=1.0,
        num_steps=10,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=np.arange(2, 14, dtype=np.int32),
        probe_tolerance=1e-3,
        model="policy_and_critic",
    )
    return LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def rollouts() -> tuple[RolloutGroup, ...]:
    groups = [replace(make_group(each, request_id=n), advantages=None) for n, each in enumerate(LENGTHS)]
    # A tool's answer between: no token of it is an action.
    mask = np.ones(groups[1].num_tokens, bool)
    mask[6:9] = False
    groups[1] = replace(groups[1], loss_mask=mask)
    return tuple(groups)


def credited(rank: LearnerRank, algorithm: PPO, *, step: int = 0) -> Batch:
    return Batch(step=step, groups=algorithm.credit(rank.score(rollouts())))


def weights(rank: LearnerRank) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in rank.network.named_parameters()}


def of_critic(name: str) -> bool:
    return name.startswith("critic.")


def test_a_critic_that_knows_nothing_expects_nothing(model_path):
    for group in open_rank(model_path).score(rollouts()):
        assert group.values is not None
        assert (group.values == 0).all()


class Plain:
    """Policy and critic as transformers runs them, one completion at a time, trained by AdamW in a loop by hand."""

    def __init__(self, model_path, *, trunk: str, critic_lr: float) -> None:
        from transformers import AutoModel, AutoModelForCausalLM

        self.policy = AutoModelForCausalLM.from_pretrained(model_path)
        self.trunk = self.policy.base_model if trunk == "shared" else AutoModel.from_pretrained(model_path)
        self.head = torch.nn.Linear(64, 1, bias=False)
        torch.nn.init.zeros_(self.head.weight)
        own = [*self.head.parameters(), *([] if trunk == "shared" else self.trunk.parameters())]
        groups = [{"params": [*self.policy.parameters()], "lr": 1e-3}, {"params": own, "lr": critic_lr}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)

    def outputs(self, group: RolloutGroup) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and values of the trained tokens."""
        prompt, logprobs, values = group.prompt.token_ids.astype(np.int64), [], []
        for tokens in group.completions():
            ids = torch.from_numpy(np.concatenate([prompt, tokens.astype(np.int64)]))
            at = slice(len(prompt) - 1, -1)
            predicted = self.policy(ids[None]).logits[0, at].log_softmax(-1)
            logprobs.append(predicted.gather(-1, ids[len(prompt) :, None])[:, 0])
            values.append(self.head(self.trunk(input_ids=ids[None]).last_hidden_state[0, at])[:, 0])
        trained = torch.ones(group.num_tokens, dtype=torch.bool)
        if group.loss_mask is not None:
            trained = torch.from_numpy(group.loss_mask)
        return torch.cat(logprobs)[trained], torch.cat(values)[trained]

    def update(self, algorithm: PPO, groups: tuple[RolloutGroup, ...], old: list[torch.Tensor]) -> float:
        def column(name: str) -> torch.Tensor:
            return torch.from_numpy(np.concatenate([g.trained(getattr(g, name)) for g in groups]).astype(np.float32))

        outputs = [self.outputs(group) for group in groups]
        lengths = torch.from_numpy(np.concatenate([group.trained_lengths for group in groups]))
        columns = TokenColumns(
            logprobs_N=torch.cat([logprobs for logprobs, _ in outputs]),
            behaviour_logprobs_N=column("logprobs"),
            old_logprobs_N=torch.cat(old),
            reference_logprobs_N=column("reference_logprobs"),
            advantages_N=column("advantages"),
            sequence_N=torch.arange(len(lengths)).repeat_interleave(lengths),
            num_sequences=len(lengths),
            values_N=torch.cat([values for _, values in outputs]),
            old_values_N=column("values"),
            returns_N=column("returns"),
        )
        weights_N = torch.from_numpy(np.concatenate(algorithm.token_weights(groups)))
        loss = (weights_N * algorithm.loss(columns).loss_N).sum() / algorithm.normaliser(groups)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_several_epochs_of_minibatches_are_a_loop_by_hand_with_the_logprobs_of_its_beginning(model_path, trunk):
    rank = open_rank(model_path, trunk=trunk, critic_lr=5e-3, microbatch_tokens=32)
    plain = Plain(model_path, trunk=trunk, critic_lr=5e-3)
    batch = credited(rank, SEVERAL)
    with torch.no_grad():
        old = [plain.outputs(group)[0] for group in batch.groups]
    losses = []
    for groups, _ in minibatches(SEVERAL, batch, old_logprobs=None, seed=0):
        losses.append(plain.update(SEVERAL, groups, [old[group.request_id] for group in groups]))
    assert len(losses) == 4
    told = rank.update(SEVERAL, batch).metrics
    assert told["learner/loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert rank.version == 1
    for group in rank.score(rollouts()):
        # Four updates on: what either says now, to what rounding leaves of a thousandth each.
        expected = plain.outputs(group)[1].detach().numpy()
        assert np.abs(expected).max() > 1e-3
        assert group.trained(group.values) == pytest.approx(expected, abs=2e-5)
        assert group.loss_mask is None or (group.values[~group.loss_mask] == 0).all()
    with torch.no_grad():
        mine = rank._predict(batch.groups).logprobs
        for group, logprobs in zip(batch.groups, mine, strict=True):
            assert group.trained(logprobs) == pytest.approx(plain.outputs(group)[0].numpy(), abs=2e-4)


def test_a_critic_with_a_rate_of_its_own_moves_by_it(model_path):
    fast, slow = (open_rank(model_path, critic_lr=lr) for lr in (1e-2, 1e-4))
    for rank in (fast, slow):
        rank.update(PPO(kl_coef=0.0), credited(rank, PPO(kl_coef=0.0)))
    theirs = weights(slow)
    for name, mine in weights(fast).items():
        # Below a head of zeros nothing of the critic has a gradient yet.
        assert torch.equal(mine, theirs[name]) == (name != "critic.head.weight"), name
    for rank, lr in ((fast, 1e-2), (slow, 1e-4)):
        largest = rank.network.critic.head.weight.detach().abs().max().item()
        assert largest == pytest.approx(lr, rel=1e-3), "Adam's first step"


def test_frozen_layers_of_policy_and_critic_stay(model_path):
    rank = open_rank(model_path, train_last_layers=1)
    before = weights(rank)
    rank.update(PPO(kl_coef=0.0), credited(rank, PPO(kl_coef=0.0)))
    moved = {name for name, each in weights(rank).items() if not torch.equal(each, before[name])}
    assert {name for name in moved if of_critic(name)} >= {"critic.head.weight"}
    assert all("layers.1." in name or name.endswith((".norm.weight", "head.weight")) for name in moved), moved


@pytest.mark.parametrize("settings", [{}, {"trunk": "shared"}, {"train_last_layers": 1}], ids=str)
def test_a_critic_that_was_saved_and_loaded_goes_on_to_the_bit(model_path, tmp_path, settings):
    rank = open_rank(model_path, **settings)
    rank.update(SEVERAL, credited(rank, SEVERAL))
    rank.snapshot(with_state=True).write(tmp_path)
    other = open_rank(model_path, **settings)
    other.load(tmp_path)
    assert other.version == 1
    reports = [each.update(SEVERAL, credited(each, SEVERAL, step=1)) for each in (rank, other)]
    assert reports[0].metrics["learner/loss"] == reports[1].metrics["learner/loss"]
    theirs = weights(other)
    for name, mine in weights(rank).items():
        assert torch.equal(mine, theirs[name]), name
