"""KTO as a value: single completions, groups of any size, and its loss by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_cluster.algorithms import KTO

LOG3 = math.log(3)


def test_a_completion_is_desirable_where_its_reward_is_above_the_bound(group):
    credited = KTO(desirable_above=0.0).credit([group([0.0, 0.1], lengths=[1, 2]), group([-1.0], lengths=[1])])
    assert [made.advantages.tolist() for made in credited] == [[-1.0, 1.0, 1.0], [-1.0]]


@pytest.mark.parametrize(
    ("rewards", "masked", "reason"),
    [([], (), "too_few_valid"), ([1.0], (), None), ([1.0, 1.0], (), None), ([1.0, 0.0], (0, 1), "no_tokens")],
)
def test_only_what_holds_nothing_is_dropped(group, rewards, masked, reason):
    assert KTO().drop_reason(group(rewards, masked=masked)) == reason


def test_the_loss_of_a_group_is_the_sum_over_its_completions(group, columns):
    algorithm = KTO(beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)
    groups = algorithm.credit([group([1.0, 0.0], lengths=[2, 1]), group([0.0], lengths=[1])])
    # Log-ratios 2 log 3 (over two tokens), 2 log 3, and -2 log 3: sigmoids 3/4, 3/4, 1/4.
    made = columns(groups, [LOG3, LOG3, 2 * LOG3, 0.0], reference=[0.0, 0.0, 0.0, 2 * LOG3])
    loss = algorithm.loss(made)
    assert loss.loss_G.tolist() == pytest.approx([2 * 0.25 + 3 * 0.75, 3 * 0.25])
    assert loss.metrics["accuracy"].tolist() == [0.5, 1.0]
    assert loss.metrics["margin"].tolist() == pytest.approx([0.0, LOG3])
    assert loss.metrics["log_ratio"].tolist() == pytest.approx([2 * LOG3, -2 * LOG3])
    assert algorithm.normaliser(groups) == 3.0


def test_a_baseline_moves_where_a_gain_begins(group, columns):
    groups = KTO().credit([group([1.0], lengths=[1])])
    loss = KTO(kl_baseline=4.0).loss(columns(groups, [4.0], reference=[0.0]))
    assert loss.loss_G.item() == pytest.approx(0.5)
    assert loss.metrics["accuracy"].item() == 0.5


def test_the_gradient_agrees_with_finite_differences_and_metrics_have_none(group, columns):
    groups = KTO().credit([group([1.0, 0.0]), group([0.0])])
    logprobs = torch.linspace(-2, 2, 6, dtype=torch.float64).requires_grad_()

    def loss(logprobs_N):
        return KTO(kl_baseline=0.3).loss(columns(groups, logprobs_N, reference=[0.0] * 6))

    assert torch.autograd.gradcheck(lambda logprobs_N: loss(logprobs_N).loss_G, logprobs)
    assert not any(values.requires_grad for values in loss(logprobs).metrics.values())


def test_it_needs_labels_and_the_reference():
    assert KTO().needs == {"reward", "reference"}
