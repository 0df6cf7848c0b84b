"""What driver and learner rely on, of every algorithm in the table and of its main variants."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rlhf_cluster.algorithms import ALGORITHMS, CISPO, GRPO, GSPO, PPO, GroupLoss, ReinforcePP, resolve, type_name
from rlhf_cluster.data.packing import build_microbatch, rows_of
from rlhf_cluster.learner.columns import BatchColumns
from rlhf_cluster.learner.predictions import weighted
from rlhf_cluster.models.outputs import Outputs
from rlhf_cluster.testing import make_group

VARIANTS = {
    **{name: kind() for name, kind in ALGORITHMS.items()},
    "grpo with a KL and an entropy": GRPO(kl_coef=0.1, entropy_coef=0.01, dual_clip=3.0, num_epochs=2),
    "grpo by sequence": GRPO(aggregation="sequence", importance="sequence", scale_rewards="none"),
    "grpo masked": GRPO(importance="masked", overlong_length=6, overlong_cache=3),
    "grpo with the KL in the reward": GRPO(kl_coef=0.1, kl_in="reward", kl_estimator="k1", importance="none"),
    "gspo by token": GSPO(gradient="token", importance="geometric"),
    "cispo by sequence": CISPO(aggregation="sequence"),
    "reinforce_pp with siblings": ReinforcePP(baseline="group", kl_coef=0.1),
    "ppo with everything": PPO(
        kl_target=3.0, whiten_rewards=True, reward_clip=1.0, entropy_coef=0.01, dual_clip=3.0, num_minibatches=2
    ),
    "ppo with nothing": PPO(kl_coef=0.0, value_clip=None, whiten_advantages=False, importance="none"),
}
COLUMNS = {"reward": "rewards", "reference": "reference_logprobs", "value": "values"}


@pytest.fixture(params=VARIANTS)
def algorithm(request):
    return VARIANTS[request.param]


@pytest.fixture
def groups(algorithm):
    """As the driver hands them over: scored, not credited; in one of them some tokens are not trained on."""
    made = [make_group(lengths, request_id=n) for n, lengths in enumerate([(3, 1, 5), (2, 4), (6, 2, 1, 3)])]
    draw = np.random.default_rng(0)
    mask = np.array([True, False, True, False, True, True])
    return [
        replace(
            group,
            advantages=None,
            reference_logprobs=group.reference_logprobs if "reference" in algorithm.needs else None,
            values=draw.normal(size=group.num_tokens).astype(np.float32) if "value" in algorithm.needs else None,
            loss_mask=mask if n == 1 else None,
        )
        for n, group in enumerate(made)
    ]


class Network:
    """Stands for the trained network: its outputs for each token and completion are the parameters themselves."""

    def __init__(self, algorithm, groups):
        draw = torch.Generator().manual_seed(0)
        num_tokens = sum(group.num_trained_tokens for group in groups)
        num_completions = sum(group.num_completions for group in groups)
        self.scores = algorithm.model == "reward_model"
        self.logprobs = (-torch.rand(num_tokens, generator=draw) * 4).requires_grad_()
        self.entropy = torch.rand(num_tokens, generator=draw).requires_grad_() if algorithm.wants_entropy else None
        has_critic = algorithm.model == "policy_and_critic"
        self.values = torch.randn(num_tokens, generator=draw).requires_grad_() if has_critic else None
        self.scores_all = torch.randn(num_completions, generator=draw).requires_grad_() if self.scores else None

    def __call__(self, microbatch):
        if self.scores_all is not None:
            return Outputs(scores_S=self.scores_all[torch.from_numpy(microbatch.completion_S)])
        origin_N = torch.from_numpy(microbatch.origin_N)
        return Outputs(
            logprobs_N=self.logprobs[origin_N],
            entropy_N=None if self.entropy is None else self.entropy[origin_N],
            values_N=None if self.values is None else self.values[origin_N],
        )

    @property
    def parameters(self):
        if self.scores_all is not None:
            return (self.scores_all,)
        return tuple(each for each in (self.logprobs, self.entropy, self.values) if each is not None)


def gradients(algorithm, groups, *, rows_a_microbatch, max_row_tokens=100):
    """Of the sum over microbatches, before the normaliser, in every output; and each microbatch's parts of the loss."""
    network = Network(algorithm, groups)
    old = [group.logprobs + np.float32(0.1) for group in groups]
    columns = BatchColumns.of(algorithm, groups, device=torch.device("cpu"), old_logprobs=old)
    rows = rows_of(
        groups,
        share_prompt=True,
        max_row_tokens=max_row_tokens,
        whole_groups=algorithm.whole_groups,
        with_last=True,
    )
    parts = []
    for first in range(0, len(rows), rows_a_microbatch):
        microbatch = build_microbatch(groups, rows[first : first + rows_a_microbatch], with_last=True)
        parts.append(algorithm.loss(columns.tensors_of(microbatch, network(microbatch))))
        weighted(parts[-1], columns, microbatch).backward()
    return [each.grad for each in network.parameters], parts


def test_it_is_frozen_and_travels_and_its_table_gives_it_again(algorithm):
    with pytest.raises(ValidationError, match="frozen"):
        algorithm.type = "other"
    assert pickle.loads(pickle.dumps(algorithm)) == algorithm
    assert resolve({"type": type_name(algorithm), **algorithm.model_dump(mode="json", exclude={"type"})}) == algorithm
    assert hash(algorithm) == hash(copy.deepcopy(algorithm))


def test_what_it_needs_and_repeats_is_what_there_is(algorithm):
    assert algorithm.needs <= COLUMNS.keys()
    assert min(algorithm.updates) >= 1
    assert "value" in algorithm.needs or algorithm.model != "policy_and_critic"


def test_groups_that_teach_are_kept_and_empty_ones_are_dropped_with_a_word(algorithm, groups):
    assert [algorithm.drop_reason(group) for group in groups] == [None] * 3
    empty = groups[0].select(np.zeros(3, dtype=bool))
    assert algorithm.drop_reason(empty) in {"too_few_valid", "no_tokens"}


def test_credit_fills_its_columns_and_leaves_the_others_and_the_groups_it_was_given(algorithm, groups):
    before = copy.deepcopy(groups)
    credited = algorithm.credit(groups)
    assert [group.request_id for group in credited] == [0, 1, 2]
    for group in credited:
        wanted = {"advantages"} | ({"returns"} if algorithm.model == "policy_and_critic" else set())
        for name in wanted if algorithm.model != "reward_model" else set():
            column = getattr(group, name)
            assert column.dtype == np.float32
            assert column.shape == (group.num_tokens,)
            assert np.isfinite(column).all()
    for group, was in zip(groups, before, strict=True):
        for name in {field.name for field in fields(group)} - {"prompt"}:
            np.testing.assert_equal(getattr(group, name), getattr(was, name))


def test_every_trained_token_has_a_weight_and_the_batch_a_divisor(algorithm, groups):
    credited = algorithm.credit(groups)
    assert algorithm.normaliser(credited) > 0
    if not algorithm.whole_groups:
        weights = algorithm.token_weights(credited)
        assert [part.shape for part in weights] == [(group.num_trained_tokens,) for group in credited]
        assert all(part.dtype == np.float32 and (part > 0).all() for part in weights)


def test_the_loss_is_finite_has_a_gradient_and_its_figures_have_none(algorithm, groups):
    found, (parts,) = gradients(algorithm, algorithm.credit(groups), rows_a_microbatch=100)
    assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in found)
    loss = parts.loss_G if isinstance(parts, GroupLoss) else parts.loss_N
    assert isinstance(parts, GroupLoss) == algorithm.whole_groups
    for name, values in parts.metrics.items():
        assert values.shape == loss.shape, name
        assert values.isfinite().all(), name
        assert not values.requires_grad, name


def test_the_loss_is_pure(algorithm, groups):
    credited = algorithm.credit(groups)
    first, again = (gradients(algorithm, credited, rows_a_microbatch=100)[0] for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize(("rows_a_microbatch", "max_row_tokens"), [(1, 100), (1, 8), (2, 8)])
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(algorithm, groups, rows_a_microbatch, max_row_tokens):
    credited = algorithm.credit(groups)
    whole, _ = gradients(algorithm, credited, rows_a_microbatch=100)
    cut, parts = gradients(algorithm, credited, rows_a_microbatch=rows_a_microbatch, max_row_tokens=max_row_tokens)
    assert len(parts) > 1
    torch.testing.assert_close(cut, whole)


def test_what_it_says_of_a_group_alone_is_what_it_says_of_it_in_a_batch(algorithm, groups):
    if not algorithm.by_group:
        pytest.skip("credits the batch as a whole")
    together = algorithm.credit(groups)
    for group, in_batch in zip(groups, together, strict=True):
        (alone,) = algorithm.credit([group])
        np.testing.assert_array_equal(alone.advantages, in_batch.advantages)
        if not algorithm.whole_groups:
            np.testing.assert_array_equal(algorithm.token_weights([alone])[0], algorithm.token_weights([in_batch])[0])


def test_no_groups_are_no_error(algorithm):
    assert algorithm.credit([]) == ()
    assert algorithm.normaliser([]) > 0
    assert algorithm.adapted([]) == algorithm
