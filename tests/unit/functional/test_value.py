"""The critic's loss case by case, its gradient, and explained variance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlhf_cluster.functional.value import explained_variance, is_value_clipped, value_loss

CASES = [
    # value, old value, return, loss at clip 0.2, gradient in the value
    (1.0, 1.0, 3.0, 2.0, -2.0),  # has not moved: half the square of 2
    (1.1, 1.0, 3.0, 0.5 * 1.9**2, -1.9),  # moved less than the clip
    (2.0, 1.0, 3.0, 0.5 * 1.8**2, 0.0),  # moved beyond it towards the return: as if it stood at 1.2
    (0.0, 1.0, 3.0, 0.5 * 3.0**2, -3.0),  # moved away: its own, greater error counts
    (4.0, 1.0, 1.1, 0.5 * 2.9**2, 2.9),  # moved past the return, and further from it than at 1.2
]


@pytest.mark.parametrize(("value", "old", "target", "loss", "gradient"), CASES)
def test_clipped_value_loss_matches_the_hand_computed_case(value, old, target, loss, gradient):
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    olds, returns = torch.tensor([old], dtype=torch.float64), torch.tensor([target], dtype=torch.float64)
    loss_N = value_loss(values, returns, old_values_N=olds, clip=0.2)
    loss_N.sum().backward()
    assert loss_N.item() == pytest.approx(loss)
    assert values.grad.item() == pytest.approx(gradient)
    assert is_value_clipped(values, returns, old_values_N=olds, clip=0.2).item() == (gradient == 0.0)


def test_without_a_clip_it_is_half_the_squared_error_and_only_the_value_has_a_gradient():
    values, returns = torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor([3.0, -1.0], requires_grad=True)
    loss_N = value_loss(values, returns)
    loss_N.sum().backward()
    assert loss_N.tolist() == [2.0, 0.5]
    assert values.grad.tolist() == [-2.0, -1.0]
    assert returns.grad is None


@pytest.mark.parametrize("clip", [None, 0.2])
def test_gradient_agrees_with_finite_differences(clip):
    values, old, returns = torch.randn(3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: value_loss(v, returns, old_values_N=old, clip=clip), values)


def test_a_clip_without_old_values_is_refused():
    with pytest.raises(ValueError, match="old_values_N"):
        value_loss(torch.zeros(1), torch.zeros(1), clip=0.2)


@pytest.mark.parametrize("array", [np.array, torch.tensor])
def test_explained_variance_is_one_for_perfect_zero_for_constant_and_negative_for_worse(array):
    returns = array([1.0, 2.0, 3.0, 6.0])
    assert float(explained_variance(returns + 5.0, returns)) == pytest.approx(1.0)
    assert float(explained_variance(returns * 0, returns)) == pytest.approx(0.0)
    # R - V of -R is 2 R, of four times the variance.
    assert float(explained_variance(-returns, returns)) == pytest.approx(-3.0)
    assert math.isnan(float(explained_variance(returns, returns * 0)))
