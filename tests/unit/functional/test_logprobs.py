"""Chosen-token log-probabilities: equal to a plain log-softmax, however they are cut into chunks."""

from __future__ import annotations

import pytest
import torch

from rlhf_cluster.functional import logprobs
from rlhf_cluster.functional.logprobs import chosen_logprobs

N, D, V = 11, 5, 13


@pytest.fixture(autouse=True)
def _few_rows_a_slice(monkeypatch):
    monkeypatch.setattr(logprobs, "CPU_SLICE_ELEMENTS", 4 * V)


def _inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(N, D, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    weight_VD = torch.randn(V, D, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    return hidden_ND, weight_VD, torch.randint(V, (N,), generator=generator)


def _plain(hidden_ND, weight_VD, targets_N, temperature):
    all_NV = (hidden_ND @ weight_VD.T / temperature).log_softmax(-1)
    return all_NV.gather(1, targets_N.unsqueeze(1)).squeeze(1), -(all_NV.exp() * all_NV).sum(-1)


@pytest.mark.parametrize("chunk", [3, N, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_gradients_and_entropy_equal_those_of_a_plain_log_softmax(chunk, temperature):
    hidden_ND, weight_VD, targets_N = _inputs()
    upstream_N = torch.linspace(-1, 2, N, dtype=torch.float64)
    expected_N, entropy_N = _plain(hidden_ND, weight_VD, targets_N, temperature)
    expected_gradients = torch.autograd.grad(
        ((expected_N + 0.3 * entropy_N) * upstream_N).sum(), (hidden_ND, weight_VD)
    )
    actual_N, actual_entropy_N = chosen_logprobs(
        hidden_ND, weight_VD, targets_N, temperature=temperature, chunk=chunk, want_entropy=True
    )
    gradients = torch.autograd.grad(((actual_N + 0.3 * actual_entropy_N) * upstream_N).sum(), (hidden_ND, weight_VD))
    torch.testing.assert_close(actual_N, expected_N)
    torch.testing.assert_close(actual_entropy_N, entropy_N)
    torch.testing.assert_close(gradients, expected_gradients)


@pytest.mark.parametrize("chunk", [4, N])
def test_gradients_agree_with_finite_differences(chunk):
    hidden_ND, weight_VD, targets_N = _inputs()

    def values(hidden, weight):
        return chosen_logprobs(hidden, weight, targets_N, temperature=0.8, chunk=chunk)[0]

    assert torch.autograd.gradcheck(values, (hidden_ND, weight_VD))


@pytest.mark.parametrize("chunk", [4, N])
def test_gradients_of_the_entropy_alone_and_beside_the_logprobs_agree_with_finite_differences(chunk):
    hidden_ND, weight_VD, targets_N = _inputs()

    def both(hidden, weight):
        return chosen_logprobs(hidden, weight, targets_N, temperature=0.8, chunk=chunk, want_entropy=True)

    assert torch.autograd.gradcheck(both, (hidden_ND, weight_VD))
    assert torch.autograd.gradcheck(lambda *inputs: both(*inputs)[1], (hidden_ND, weight_VD))


def test_logprobs_are_the_same_to_the_bit_whether_the_entropy_is_wanted_or_not():
    hidden_ND, weight_VD, targets_N = _inputs(torch.float32)
    alone_N, _ = chosen_logprobs(hidden_ND, weight_VD, targets_N, temperature=0.7)
    beside_N, _ = chosen_logprobs(hidden_ND, weight_VD, targets_N, temperature=0.7, want_entropy=True)
    assert torch.equal(alone_N, beside_N)


def test_a_second_backward_pass_gives_the_same_gradient_again():
    hidden_ND, weight_VD, targets_N = _inputs()
    total = chosen_logprobs(hidden_ND, weight_VD, targets_N)[0].sum()
    first = torch.autograd.grad(total, (hidden_ND, weight_VD), retain_graph=True)
    second = torch.autograd.grad(total, (hidden_ND, weight_VD))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_frozen_side_gets_no_gradient_and_the_other_one_still_does(frozen):
    hidden_ND, weight_VD, targets_N = _inputs()
    still, moving = (hidden_ND, weight_VD) if frozen == "hidden" else (weight_VD, hidden_ND)
    still.requires_grad_(False)
    chosen_logprobs(hidden_ND, weight_VD, targets_N)[0].sum().backward()
    assert still.grad is None
    assert moving.grad.abs().sum() > 0


def test_bfloat16_logits_are_summed_in_float32():
    hidden_ND, weight_VD, targets_N = _inputs(torch.bfloat16)
    actual_N, entropy = chosen_logprobs(hidden_ND, weight_VD, targets_N)
    logits_NV = (hidden_ND @ weight_VD.T).float()
    expected_N = logits_NV.log_softmax(-1).gather(1, targets_N.unsqueeze(1)).squeeze(1)
    assert entropy is None
    assert actual_N.dtype == torch.float32
    torch.testing.assert_close(actual_N, expected_N, rtol=1e-6, atol=1e-6)
    actual_N.sum().backward()
    assert hidden_ND.grad.dtype == weight_VD.grad.dtype == torch.bfloat16


def test_under_autocast_master_weights_get_gradients_in_their_own_dtype():
    hidden_ND, weight_VD, targets_N = _inputs(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual_N, _ = chosen_logprobs(hidden_ND, weight_VD, targets_N, chunk=4)
    actual_N.sum().backward()
    expected_N, _ = _plain(hidden_ND, weight_VD, targets_N, 1.0)
    expected_gradient = torch.autograd.grad(expected_N.sum(), weight_VD)[0]
    assert actual_N.dtype == weight_VD.grad.dtype == torch.float32
    torch.testing.assert_close(actual_N, expected_N, rtol=0.05, atol=0.05)
    torch.testing.assert_close(weight_VD.grad, expected_gradient, rtol=0.05, atol=0.05)


def test_nothing_is_kept_for_a_backward_pass_that_will_not_come():
    hidden_ND, weight_VD, targets_N = _inputs()
    with torch.no_grad():
        actual_N, _ = chosen_logprobs(hidden_ND, weight_VD, targets_N, chunk=3)
    assert not actual_N.requires_grad
    torch.testing.assert_close(actual_N, _plain(hidden_ND, weight_VD, targets_N, 1.0)[0])
