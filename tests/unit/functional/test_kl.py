"""KL estimators against the exact divergence, by hand, and what their gradients are the gradients of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlhf_cluster.functional.kl import adapted_coef, estimate

POLICY = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)


@pytest.mark.parametrize(("estimator", "expected"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 1 + 0.5)])
def test_estimates_match_the_formulas_on_numpy_and_on_tensors(estimator, expected):
    on_numpy = estimate(np.array([-1.0]), np.array([-1.5]), estimator=estimator)
    on_tensor = estimate(torch.tensor([-1.0]), torch.tensor([-1.5]), estimator=estimator)
    assert on_numpy.item() == pytest.approx(expected)
    assert on_tensor.item() == pytest.approx(expected)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_average_to_the_exact_divergence(estimator):
    exact = (POLICY * (POLICY / REFERENCE).log()).sum()
    values = estimate(POLICY.log(), REFERENCE.log(), estimator=estimator)
    torch.testing.assert_close((POLICY * values).sum(), exact)


@pytest.mark.parametrize(
    ("estimator", "divergence"),
    [
        ("k1", lambda policy: 0.0 * policy.sum()),
        ("k2", lambda policy: (policy * (policy / REFERENCE).log()).sum()),
        ("k3", lambda policy: (REFERENCE * (REFERENCE / policy).log()).sum()),
    ],
)
def test_the_mean_gradient_is_that_of_the_divergence_the_table_names(estimator, divergence):
    logits = POLICY.log().clone().requires_grad_()
    logprobs = logits.log_softmax(-1)
    sampled = (POLICY * estimate(logprobs, REFERENCE.log(), estimator=estimator)).sum()
    (as_loss,) = torch.autograd.grad(sampled, logits)
    (exact,) = torch.autograd.grad(divergence(logits.softmax(-1)), logits)
    torch.testing.assert_close(as_loss, exact)


def test_k3_keeps_its_digits_where_the_policies_nearly_agree():
    gap = np.float32(1e-3)
    assert estimate(np.array([gap]), np.zeros(1, np.float32), estimator="k3").item() == pytest.approx(5e-7, rel=1e-3)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_far_outlier_gives_finite_values_and_gradients(estimator):
    logprobs = torch.tensor([-200.0, 0.0], requires_grad=True)
    values = estimate(logprobs, torch.tensor([0.0, -200.0]), estimator=estimator)
    values.sum().backward()
    assert values.isfinite().all()
    assert logprobs.grad.isfinite().all()


def test_an_unknown_estimator_is_refused_by_name():
    with pytest.raises(ValueError, match="k4"):
        estimate(np.zeros(1), np.zeros(1), estimator="k4")


@pytest.mark.parametrize(
    ("kl", "expected"),
    # 256 completions over a horizon of 10,240: the error counts 1/40.
    [(6.0, 0.1), (6.6, 0.1 * (1 + 0.1 / 40)), (60.0, 0.1 * (1 + 0.2 / 40)), (-3.0, 0.1 * (1 - 0.2 / 40))],
)
def test_the_coefficient_follows_the_error_in_proportion_and_at_most_by_a_fifth_of_its_step(kl, expected):
    assert adapted_coef(0.1, kl, 6.0, 256, 10_240) == pytest.approx(expected)


@pytest.mark.parametrize(("target", "num_steps", "horizon"), [(0.0, 1, 10), (1.0, 1, 0), (1.0, 100, 20)])
def test_a_controller_that_could_turn_the_coefficient_round_is_refused(target, num_steps, horizon):
    with pytest.raises(ValueError, match="above"):
        adapted_coef(0.1, 1.0, target, num_steps, horizon)
