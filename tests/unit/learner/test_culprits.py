"""A refused step names the groups to blame and no other, on a real learner rank."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from rlhf_cluster.algorithms import DPO, GRPO, Algorithm
from rlhf_cluster.errors import StepRefused
from rlhf_cluster.learner.culprits import Culprit, sentence
from rlhf_cluster.learner.rank import LearnerRank
from rlhf_cluster.learner.settings import LearnerSettings, OptimizerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import make_group, save_tiny_model
from rlhf_cluster.weights.memory import MemoryTransport

LENGTHS = [(3, 7), (5, 2), (9, 4), (6, 6)]
FIRST_ID = 40


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def open_rank(model_path, **settings) -> LearnerRank:
    spec = LearnerSpec(
        settings=LearnerSettings(precision="fp32", optimizer=OptimizerSettings(lr=1e-3), **settings),
        model_path=model_path,
        temperature=1.0,
        num_steps=10,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=np.arange(2, 14, dtype=np.int32),
        probe_tolerance=1e-3,
    )
    return LearnerRank(spec, rank=0, num_ranks=1, transport=MemoryTransport())


def batch(**bad: tuple[int, float]) -> Batch:
    """`column=(group, value)`: one token of that column of that group holds the value."""
    groups = [make_group(lengths, request_id=FIRST_ID + number) for number, lengths in enumerate(LENGTHS)]
    for column, (number, value) in bad.items():
        values = getattr(groups[number], column).copy()
        values[1] = value
        groups[number] = replace(groups[number], **{column: values})
    return Batch(step=0, groups=tuple(groups))


def refusal(rank: LearnerRank, algorithm: Algorithm, refused: Batch) -> StepRefused:
    with pytest.raises(StepRefused) as caught:
        rank.update(algorithm, refused)
    return caught.value


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("settings", [{}, {"packing": "padded"}, {"max_row_tokens": 16}], ids=str)
def test_only_the_group_with_a_number_that_is_not_finite_is_named(model_path, settings, value):
    error = refusal(open_rank(model_path, **settings), GRPO(kl_coef=0.1), batch(reference_logprobs=(2, value)))
    assert error.request_ids == (FIRST_ID + 2,)
    assert str(error).startswith("step 0: the ")
    assert "the step was not applied. Not finite in 1 of 4 groups: reference_logprobs, the loss" in str(error)
    assert str(error).endswith(f"of group {FIRST_ID + 2}")


def test_all_groups_to_blame_are_named_in_the_order_of_the_batch(model_path):
    error = refusal(
        open_rank(model_path), GRPO(kl_coef=0.1), batch(reference_logprobs=(3, np.nan), advantages=(1, np.inf))
    )
    assert error.request_ids == (FIRST_ID + 1, FIRST_ID + 3)
    assert f"advantages, the loss, the gradient of group {FIRST_ID + 1}; reference_logprobs, " in str(error)


def test_a_column_that_the_loss_does_not_read_blames_nobody(model_path):
    rank = open_rank(model_path)
    error = refusal(rank, GRPO(), batch(rewards=(3, np.nan), advantages=(1, np.nan)))
    assert error.request_ids == (FIRST_ID + 1,)


def test_a_pair_of_preferences_is_to_blame_as_a_whole(model_path):
    algorithm = DPO()
    good = batch()
    bad = replace(good.groups[1], reference_logprobs=np.full(good.groups[1].num_tokens, np.nan, np.float32))
    pairs = [replace(group, rewards=np.array([1, 0], np.float32)) for group in (good.groups[0], bad, *good.groups[2:])]
    error = refusal(open_rank(model_path), algorithm, Batch(step=0, groups=algorithm.credit(pairs)))
    assert error.request_ids == (FIRST_ID + 1,)


def test_weights_that_are_not_finite_are_suspected_when_every_group_is_to_blame(model_path):
    import torch

    rank = open_rank(model_path)
    with torch.no_grad():
        next(iter(rank.network.language_model.parameters())).fill_(np.nan)
    error = refusal(rank, GRPO(), batch())
    assert error.request_ids == tuple(range(FIRST_ID, FIRST_ID + 4))
    assert "The weights themselves may no longer be finite" in str(error)


def test_a_sum_that_is_too_large_blames_no_group_alone(model_path):
    large = batch()
    large = replace(
        large, groups=tuple(replace(g, advantages=np.full(g.num_tokens, 1e22, np.float32)) for g in large.groups)
    )
    error = refusal(open_rank(model_path), GRPO(), large)
    assert error.request_ids == ()
    assert "Every group alone is finite: their sum is too large" in str(error)


def test_after_a_refusal_the_rank_learns_as_if_there_had_been_none(model_path):
    refused, fresh = open_rank(model_path), open_rank(model_path)
    refusal(refused, GRPO(kl_coef=0.1), batch(reference_logprobs=(2, np.nan)))
    expected = fresh.update(GRPO(kl_coef=0.1), batch())
    found = refused.update(GRPO(kl_coef=0.1), batch())
    assert found.metrics["learner/grad_norm"] == expected.metrics["learner/grad_norm"]
    assert refused.publish().manifest.fingerprint == fresh.publish().manifest.fingerprint


def test_a_refusal_keeps_its_groups_on_the_way_between_processes():
    arrived = pickle.loads(pickle.dumps(StepRefused("step 3: the loss is nan", request_ids=[4, 9])))
    assert (str(arrived), arrived.request_ids) == ("step 3: the loss is nan", (4, 9))


def test_a_long_list_of_groups_is_cut():
    told = sentence([Culprit(request_id=n, where=("the loss",)) for n in range(7)], num_groups=9)
    assert told.startswith("Not finite in 7 of 9 groups: the loss of group 0; ")
    assert told.endswith("the loss of group 4; and 2 more")
