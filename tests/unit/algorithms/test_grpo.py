"""GRPO as a value: what it drops, credits and weighs on numpy, and its loss on tensors, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rlhf_cluster.algorithms import GRPO, TokenColumns
from rlhf_cluster.records import Prompt, RolloutGroup


def _group(rewards, *, lengths=None, logprobs=None, reference=None):
    lengths = np.array(lengths or [2] * len(rewards), dtype=np.int32)
    num_tokens = int(lengths.sum())
    return RolloutGroup(
        request_id=0,
        prompt=Prompt(prompt_id="0/0", text="", token_ids=np.array([1], dtype=np.int32)),
        worker_id="w0",
        lengths=lengths,
        token_ids=np.zeros(num_tokens, dtype=np.int32),
        logprobs=np.array(logprobs if logprobs is not None else [-1.0] * num_tokens, dtype=np.float32),
        versions=np.zeros(num_tokens, dtype=np.int32),
        finish_reasons=("stop",) * len(lengths),
        rewards=np.array(rewards, dtype=np.float32),
        reference_logprobs=None if reference is None else np.array(reference, dtype=np.float32),
    )


def _columns(logprobs, *, behaviour=None, old=None, reference=None, advantages=None):
    def column(values):
        return None if values is None else torch.tensor(values, dtype=torch.float64)

    return TokenColumns(
        logprobs_N=column(logprobs).requires_grad_(),
        behaviour_logprobs_N=column(behaviour if behaviour is not None else logprobs),
        old_logprobs_N=column(old),
        reference_logprobs_N=column(reference),
        advantages_N=column(advantages if advantages is not None else [1.0] * len(logprobs)),
        sequence_N=torch.zeros(len(logprobs), dtype=torch.int64),
        num_sequences=1,
    )


@pytest.mark.parametrize(("kl_coef", "needs"), [(0.0, {"reward"}), (0.1, {"reward", "reference"})])
def test_it_needs_the_reference_only_when_a_kl_is_asked_for(kl_coef, needs):
    assert GRPO(kl_coef=kl_coef).needs == needs


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [([1.0], "too_few_valid"), ([], "too_few_valid"), ([0.1] * 3, "zero_variance"), ([0.0, 1.0], None)],
)
def test_groups_that_teach_nothing_are_dropped_with_the_reason(rewards, reason):
    assert GRPO().drop_reason(_group(rewards)) == reason


def test_groups_of_equal_rewards_stay_when_asked_for():
    assert GRPO(keep_zero_variance=True).drop_reason(_group([1.0, 1.0])) is None


def test_credit_repeats_the_advantage_of_a_completion_over_its_tokens():
    (credited,) = GRPO(scale_rewards="none").credit([_group([0.0, 3.0], lengths=[1, 2])])
    assert credited.advantages.dtype == np.float32
    assert credited.advantages.tolist() == [-1.5, 1.5, 1.5]


def test_kl_in_the_reward_is_summed_over_a_completion_before_the_baseline():
    group = _group([1.0, 2.0], lengths=[1, 2], logprobs=[-1.0, -1.0, -1.0], reference=[-1.0, -2.0, -3.0])
    algorithm = GRPO(scale_rewards="none", kl_coef=0.5, kl_in="reward", kl_estimator="k1")
    (credited,) = algorithm.credit([group])  # rewards become 1 and 2 - 0.5 * (1 + 2) = 0.5
    np.testing.assert_allclose(credited.advantages, [0.25, -0.25, -0.25])


def test_kl_in_the_reward_is_not_counted_again_in_the_loss():
    algorithm = GRPO(kl_coef=0.5, kl_in="reward", kl_estimator="k1")
    loss = algorithm.loss(_columns([-1.0], reference=[-2.0]))
    assert loss.loss_N.tolist() == [-1.0]
    assert loss.metrics["kl"].tolist() == [1.0]


def test_missing_reward_of_a_group_is_our_bug_and_is_not_taken_for_a_number():
    with pytest.raises(AssertionError, match="request 0"):
        GRPO().credit([_group([1.0, math.nan])])
    with pytest.raises(AssertionError, match="reference"):
        GRPO(kl_coef=0.1, kl_in="reward").credit([_group([1.0, 2.0])])


def test_the_first_update_of_a_step_is_the_plain_policy_gradient():
    columns = _columns([-1.0, -2.0], advantages=[2.0, -3.0])
    GRPO().loss(columns).loss_N.sum().backward()
    assert columns.logprobs_N.grad.tolist() == [-2.0, 3.0]


def test_later_updates_are_clipped_against_the_policy_at_the_start_of_the_step():
    columns = _columns([-1.0, -1.0], old=[-1.0 - math.log(2), -1.0], advantages=[2.0, 2.0])
    result = GRPO(clip_high=0.28, tis_cap=None).loss(columns)
    result.loss_N.sum().backward()
    assert result.loss_N.tolist() == pytest.approx([-2.56, -2.0])
    assert columns.logprobs_N.grad.tolist() == pytest.approx([0.0, -2.0])
    assert result.metrics["clip_fraction"].tolist() == [1.0, 0.0]
    assert result.metrics["ratio"].tolist() == pytest.approx([2.0, 1.0])


def test_tokens_that_the_engine_drew_too_seldom_are_weighted_up_to_the_cap():
    columns = _columns([-1.0, -1.0], behaviour=[-3.0, -1.0 + math.log(2)])
    result = GRPO(tis_cap=2.0).loss(columns)
    assert result.loss_N.tolist() == pytest.approx([-2.0, -0.5])
    assert result.metrics["tis_weight"].tolist() == pytest.approx([2.0, 0.5])
    assert result.metrics["mismatch_gap"].tolist() == pytest.approx([2.0, math.log(2)])
    assert GRPO(tis_cap=None).loss(columns).loss_N.tolist() == [-1.0, -1.0]


def test_mismatch_is_reported_also_when_it_is_not_corrected():
    metrics = GRPO(tis_cap=None).loss(_columns([-1.0], behaviour=[-1.5])).metrics
    assert metrics["mismatch_kl"].item() == pytest.approx(math.exp(0.5) - 1.5)
    assert set(metrics) == {"ratio", "clip_fraction", "mismatch_kl", "mismatch_gap"}


def test_the_kl_term_pulls_the_policy_towards_the_reference():
    columns = _columns([-1.0], reference=[-2.0], advantages=[0.0])
    result = GRPO(kl_coef=0.1, kl_estimator="k2").loss(columns)
    result.loss_N.sum().backward()
    assert result.loss_N.item() == pytest.approx(0.1 * 0.5)
    assert columns.logprobs_N.grad.item() == pytest.approx(0.1)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_whole_loss_agrees_with_finite_differences(estimator):
    generator = torch.Generator().manual_seed(0)
    old, behaviour, reference, noise, advantages = torch.randn(5, 32, dtype=torch.float64, generator=generator)
    algorithm = GRPO(kl_coef=0.3, kl_estimator=estimator, clip_high=0.28, dual_clip=3.0)

    def loss(logprobs_N):
        columns = _columns([0.0] * 32, behaviour=behaviour.tolist(), old=old.tolist(), reference=reference.tolist())
        return algorithm.loss(replace(columns, logprobs_N=logprobs_N, advantages_N=advantages)).loss_N

    assert torch.autograd.gradcheck(loss, (old + 0.5 * noise).requires_grad_())


def test_metrics_carry_no_gradient():
    metrics = GRPO(kl_coef=0.1).loss(_columns([-1.0], reference=[-2.0])).metrics
    assert not any(values.requires_grad for values in metrics.values())


def test_token_weights_and_their_divisor_follow_the_aggregation():
    algorithm = GRPO(aggregation="constant", constant_length=10)
    (weights,) = algorithm.token_weights([_group([0.0, 1.0])])
    np.testing.assert_allclose(weights / algorithm.normaliser([_group([0.0, 1.0])]), [1 / 20] * 4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"aggregation": "constant"}, "max_new_tokens"),
        ({"constant_length": 64}, "constant_length = 64"),
        ({"kl_coef": 0.1, "kl_estimator": "k1"}, 'kl_in = "reward"'),
        ({"clip_low": -0.1}, "clip_low"),
        ({"cliphigh": 0.3}, "cliphigh"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused_with_the_change_to_make(fields, words):
    with pytest.raises(ValidationError, match=words):
        GRPO(**fields)
