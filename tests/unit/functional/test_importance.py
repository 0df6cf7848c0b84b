"""Ratios, truncated weights and mismatch between engine and learner, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rlhf_cluster.functional.importance import (
    masked_weight,
    mismatch_gap,
    mismatch_kl,
    ratio,
    sequence_ratio,
    sequence_token_ratio,
    sequence_weight,
    truncated_weight,
)

SEQUENCES = torch.tensor([0, 0, 1])  # completions of two tokens and of one


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


def test_masked_weight_leaves_out_what_lies_outside_the_bounds():
    behaviour = torch.zeros(5, dtype=torch.float64)
    old = torch.tensor([0.4, 0.5, 1.0, 5.0, 5.1], dtype=torch.float64).log().requires_grad_()
    weight = masked_weight(old, behaviour, low=0.499999, high=5.000001)
    assert weight.tolist() == pytest.approx([0.0, 0.5, 1.0, 5.0, 0.0])
    assert not weight.requires_grad


@pytest.mark.parametrize(
    ("mean", "expected"),
    # Token ratios 2 and 4.5 in the first completion: their product is 9, their geometric mean 3.
    [("product", [5.0, 5.0, 0.5]), ("geometric", [3.0, 3.0, 0.5])],
)
def test_sequence_weight_is_one_number_a_completion_cut_above(mean, expected):
    old = torch.tensor([2.0, 4.5, 0.5], dtype=torch.float64).log().requires_grad_()
    weight = sequence_weight(old, torch.zeros(3, dtype=torch.float64), SEQUENCES, num_sequences=2, mean=mean, cap=5.0)
    assert weight.tolist() == pytest.approx(expected)
    assert not weight.requires_grad


def test_sequence_ratio_is_the_geometric_mean_and_shares_its_gradient_among_the_tokens():
    logprobs = torch.tensor([2.0, 4.5, 0.5], dtype=torch.float64).log().requires_grad_()
    result = sequence_ratio(logprobs, torch.zeros(3, dtype=torch.float64), SEQUENCES, num_sequences=2)
    result.sum().backward()
    assert result.tolist() == pytest.approx([3.0, 0.5])
    assert logprobs.grad.tolist() == pytest.approx([1.5, 1.5, 0.5])


def test_the_token_variant_has_the_sequence_ratio_as_its_value_and_as_its_gradient():
    logprobs = torch.tensor([2.0, 4.5, 0.5], dtype=torch.float64).log().requires_grad_()
    result = sequence_token_ratio(logprobs, torch.zeros(3, dtype=torch.float64), SEQUENCES, num_sequences=2)
    (gradient,) = torch.autograd.grad((result * torch.tensor([1.0, 10.0, 100.0])).sum(), logprobs)
    assert result.tolist() == pytest.approx([3.0, 3.0, 0.5])
    assert gradient.tolist() == pytest.approx([3.0, 30.0, 50.0])


def test_sequence_ratio_agrees_with_finite_differences():
    logprobs = torch.linspace(-2, 1, 3, dtype=torch.float64, requires_grad=True)
    old = torch.zeros(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: sequence_ratio(v, old, SEQUENCES, num_sequences=2), logprobs)
