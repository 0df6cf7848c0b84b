"""Ratios, truncated weights and mismatch between engine and learner, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_cluster.functional.importance import mismatch_gap, mismatch_kl, ratio, truncated_weight


def test_ratio_is_one_with_the_gradient_of_the_logprob_when_the_policies_are_the_same():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    result = ratio(logprobs, logprobs.detach())
    result.sum().backward()
    assert result.tolist() == [1.0, 1.0]
    assert logprobs.grad.tolist() == [1.0, 1.0]


def test_ratio_agrees_with_finite_differences():
    old = torch.linspace(-3, -0.1, 16, dtype=torch.float64)
    logprobs = (old + torch.linspace(-1, 1, 16, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: ratio(values, old), logprobs)


def test_a_log_ratio_that_would_overflow_gives_a_finite_ratio_and_no_gradient():
    logprobs = torch.tensor([0.0], requires_grad=True)
    result = ratio(logprobs, torch.tensor([-500.0]))
    result.sum().backward()
    assert result.item() == pytest.approx(math.exp(20.0))
    assert logprobs.grad.item() == 0.0


def test_truncated_weight_is_cut_above_only_and_carries_no_gradient():
    old = torch.tensor([-1.0, -1.0, -3.0], requires_grad=True)
    behaviour = torch.tensor([-1.5, -3.0, -1.0])
    weight = truncated_weight(old, behaviour, cap=2.0)
    assert weight.tolist() == pytest.approx([math.exp(0.5), 2.0, math.exp(-2.0)])
    assert not weight.requires_grad


def test_mismatch_averages_to_the_divergence_of_the_behaviour_from_the_policy():
    behaviour = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    policy = torch.tensor([0.6, 0.2, 0.2], dtype=torch.float64)
    exact = (behaviour * (behaviour / policy).log()).sum()
    torch.testing.assert_close((behaviour * mismatch_kl(policy.log(), behaviour.log())).sum(), exact)


def test_mismatch_gap_is_the_absolute_difference():
    gap = mismatch_gap(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0]))
    assert gap.tolist() == pytest.approx([0.5, 1.0])
