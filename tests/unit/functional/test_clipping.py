"""The clipped surrogate: each of its cases by hand, and where its gradient stops."""

from __future__ import annotations

import pytest
import torch

from rlhf_cluster.functional.clipping import cispo_loss, is_clipped, surrogate_loss

CASES = [
    # ratio, advantage, loss at low 0.2 high 0.3, gradient of the loss in the ratio
    (1.0, 2.0, -2.0, -2.0),
    (1.5, 2.0, -2.6, 0.0),  # clipped above
    (1.25, 2.0, -2.5, -2.0),  # inside the higher upper bound
    (0.5, 2.0, -1.0, -2.0),  # below, but the advantage pulls it back
    (1.5, -2.0, 3.0, 2.0),  # above, but the advantage pulls it back
    (0.5, -2.0, 1.6, 0.0),  # clipped below
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient"), CASES)
def test_surrogate_and_its_gradient_match_the_hand_computed_case(ratio, advantage, loss, gradient):
    ratio_N = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
    advantages_N = torch.tensor([advantage], dtype=torch.float64)
    loss_N = surrogate_loss(ratio_N, advantages_N, low=0.2, high=0.3)
    loss_N.sum().backward()
    assert loss_N.item() == pytest.approx(loss)
    assert ratio_N.grad.item() == pytest.approx(gradient)
    assert is_clipped(ratio_N, advantages_N, low=0.2, high=0.3).item() == (gradient == 0.0)


@pytest.mark.parametrize(("ratio", "advantage", "loss"), [(10.0, -2.0, 6.0), (2.0, -2.0, 4.0), (10.0, 2.0, -2.4)])
def test_dual_clip_bounds_the_loss_of_negative_advantages_only(ratio, advantage, loss):
    result = surrogate_loss(torch.tensor([ratio]), torch.tensor([advantage]), low=0.2, high=0.2, dual=3.0)
    assert result.item() == pytest.approx(loss)


@pytest.mark.parametrize("dual", [None, 3.0])
def test_gradient_agrees_with_finite_differences(dual):
    generator = torch.Generator().manual_seed(0)
    ratio_N = (torch.rand(64, dtype=torch.float64, generator=generator) * 4).requires_grad_()
    advantages_N = torch.randn(64, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(lambda r: surrogate_loss(r, advantages_N, low=0.2, high=0.3, dual=dual), ratio_N)


def test_cispo_bounds_the_weight_and_leaves_every_token_its_gradient():
    logprobs_N = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    ratio_N = torch.tensor([0.1, 1.0, 9.0])
    loss_N = cispo_loss(logprobs_N, ratio_N, torch.tensor([2.0, -1.0, 1.0]), low=1.0, high=4.0)
    loss_N.sum().backward()
    assert loss_N.tolist() == pytest.approx([0.2, -2.0, 15.0])  # minus weight 0.1, 1, 5 times A times logprob
    assert logprobs_N.grad.tolist() == pytest.approx([-0.2, 1.0, -5.0])
