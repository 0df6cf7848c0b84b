"""Preference losses against numbers worked out by hand, the laws they obey, and finite differences.

Where sigmoids appear, differences are logarithms of whole numbers: sigmoid(log a) = a / (a + 1).
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.functional import preference

LOG2, LOG3, LOG9 = math.log(2), math.log(3), math.log(9)
numbers = st.floats(-30, 30)
rates = st.floats(0, 0.5)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def check_gradients(loss, num_arguments=2):
    """At random points, none of which is at a kink."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(num_arguments, 16, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(loss, tuple(row.clone().requires_grad_() for row in points))


# c - r = log 3: sigmoid = 3/4. With a margin of log 3 it is sigmoid(0) = 1/2. Smoothed by 1/5 the loss is
# -(4/5) log(3/4) - (1/5) log(1/4). Tied: -(log(3/4) + log(1/4)) / 2, with or without a margin.
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, -math.log(3 / 4)),
        ({"margin_G": LOG3}, LOG2),
        ({"label_smoothing": 0.2}, -0.8 * math.log(3 / 4) - 0.2 * math.log(1 / 4)),
        ({"tied_G": torch.tensor([True])}, -(math.log(3 / 4) + math.log(1 / 4)) / 2),
        ({"tied_G": torch.tensor([True]), "margin_G": tensor(5.0)}, -(math.log(3 / 4) + math.log(1 / 4)) / 2),
        ({"tied_G": torch.tensor([False]), "margin_G": tensor(LOG3)}, LOG2),
    ],
)
def test_bradley_terry_matches_the_formula(arguments, expected):
    loss = preference.bradley_terry_loss(tensor(1.0 + LOG3), tensor(1.0), **arguments)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@given(numbers, numbers, numbers, rates)
def test_bradley_terry_does_not_see_a_constant_added_to_both(chosen, rejected, shift, rate):
    plain = preference.bradley_terry_loss(tensor(chosen), tensor(rejected), label_smoothing=rate)
    shifted = preference.bradley_terry_loss(tensor(chosen + shift), tensor(rejected + shift), label_smoothing=rate)
    torch.testing.assert_close(plain, shifted)


@given(numbers, numbers)
def test_the_two_orders_of_a_pair_have_probabilities_that_sum_to_one(one, other):
    first = preference.bradley_terry_loss(tensor(one), tensor(other))
    second = preference.bradley_terry_loss(tensor(other), tensor(one))
    assert ((-first).exp() + (-second).exp()).item() == pytest.approx(1.0)
    assert (second - first).item() == pytest.approx(one - other, abs=1e-9)


def test_a_tie_pulls_the_two_scores_together_and_is_least_where_they_meet():
    scores = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    others = torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64)
    loss = preference.bradley_terry_loss(scores, others, tied_G=torch.ones(3, dtype=torch.bool))
    loss.sum().backward()
    assert scores.grad.sign().tolist() == [1.0, -1.0, 0.0]
    assert loss[2].item() == pytest.approx(LOG2)


def test_centring_is_the_square_of_the_sum_and_leaves_centred_pairs_alone():
    assert preference.centering_penalty(tensor(3.0, 2.0), tensor(1.0, -2.0)).tolist() == pytest.approx([0.16, 0.0])
    assert preference.centering_penalty(tensor(3.0), tensor(1.0), coef=0.5).item() == 8.0


def test_all_pairs_of_a_group_the_better_first_ties_once_and_none_across_groups():
    rewards, group = tensor(1.0, 3.0, 3.0, 0.0, 5.0), torch.tensor([0, 0, 0, 1, 1])
    first, second = preference.pairs(rewards, group)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(1, 0), (1, 2), (2, 0), (4, 3)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=9))
def test_a_group_of_k_gives_every_pair_once(rows):
    rows.sort()
    group, rewards = (torch.tensor([row[column] for row in rows], dtype=torch.int64) for column in (0, 1))
    first, second = preference.pairs(rewards.double(), group)
    found = {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(found) == len(first) == sum(size * (size - 1) // 2 for size in torch.bincount(group).tolist())
    assert (rewards[first] >= rewards[second]).all()


# h = 2 log 3, beta = 1/2: beta h = log 3. IPO's target is 1 / (2 beta) = 1.
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, -math.log(3 / 4)),
        ({"label_smoothing": 0.1}, -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)),
        ({"loss_type": "ipo"}, (LOG9 - 1) ** 2),
        ({"loss_type": "ipo", "label_smoothing": 0.5}, LOG9**2 + 1),
        ({"loss_type": "hinge"}, 0.0),
        ({"loss_type": "hinge", "label_smoothing": 0.25}, 0.25 * (1 + LOG3)),
    ],
)
def test_dpo_matches_the_formula(arguments, expected):
    loss = preference.dpo_loss(tensor(-4.0 + LOG9), tensor(-4.0), beta=0.5, **arguments)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@given(numbers, st.floats(0.01, 5), rates)
def test_dpo_begins_at_log_two_whatever_beta_and_smoothing(log_ratio, beta, rate):
    loss = preference.dpo_loss(tensor(log_ratio), tensor(log_ratio), beta=beta, label_smoothing=rate)
    assert loss.item() == pytest.approx(LOG2)


# d/dx -log sigmoid(x) at 0 is -1/2: the step that every DPO run takes first.
def test_the_first_gradient_of_dpo_is_half_of_beta():
    chosen, rejected = torch.zeros(2, 1, dtype=torch.float64).unbind()
    chosen.requires_grad_(), rejected.requires_grad_()
    preference.dpo_loss(chosen, rejected, beta=0.1).sum().backward()
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-0.05, 0.05))


@given(numbers, numbers, st.floats(0.01, 5), st.sampled_from(["sigmoid", "ipo", "hinge"]))
def test_a_label_that_is_wrong_half_of_the_time_does_not_see_the_order(one, other, beta, loss_type):
    first = preference.dpo_loss(tensor(one), tensor(other), beta=beta, loss_type=loss_type, label_smoothing=0.5)
    second = preference.dpo_loss(tensor(other), tensor(one), beta=beta, loss_type=loss_type, label_smoothing=0.5)
    torch.testing.assert_close(first, second)


@given(st.floats(0.01, 0.49), st.floats(0.05, 2))
def test_conservative_dpo_is_least_at_the_log_odds_of_a_right_label(rate, beta):
    best = math.log((1 - rate) / rate) / beta
    h = torch.tensor([best], dtype=torch.float64, requires_grad=True)
    loss = preference.dpo_loss(h, tensor(0.0), beta=beta, label_smoothing=rate)
    loss.sum().backward()
    assert h.grad.item() == pytest.approx(0.0, abs=1e-9)
    # There the loss is the entropy of the label, below which no cross-entropy goes.
    assert loss.item() == pytest.approx(-rate * math.log(rate) - (1 - rate) * math.log(1 - rate))


@given(st.floats(0.05, 5), numbers)
def test_ipo_is_zero_at_its_target_margin_and_nowhere_below(beta, h):
    assert preference.dpo_loss(tensor(1 / (2 * beta)), tensor(0.0), beta=beta, loss_type="ipo").item() == 0.0
    assert preference.dpo_loss(tensor(h), tensor(0.0), beta=beta, loss_type="ipo").item() >= 0.0


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_far_margins_have_finite_losses_and_gradients(logit):
    x = torch.tensor([logit], requires_grad=True)
    loss = preference.logistic_loss(x, label_smoothing=0.1)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1e4 * (0.9 if logit < 0 else 0.1))
    assert x.grad.item() == pytest.approx(-0.9 if logit < 0 else 0.1)


def test_an_unknown_loss_is_refused_by_name():
    with pytest.raises(ValueError, match="kahneman"):
        preference.dpo_loss(tensor(0.0), tensor(0.0), loss_type="kahneman")


# beta (log_ratio - z0) = log 3: a desirable completion has 1 - 3/4, an undesirable one sigmoid(log 3) = 3/4.
@pytest.mark.parametrize(("z0", "log_ratio"), [(0.0, LOG9), (2.0, 2.0 + LOG9), (-7.0, LOG9)])
def test_kto_matches_the_formula_and_cuts_its_baseline_at_zero(z0, log_ratio):
    losses = preference.kto_loss(
        tensor(log_ratio, log_ratio),
        torch.tensor([True, False]),
        beta=0.5,
        z0=z0,
        desirable_weight=2.0,
        undesirable_weight=3.0,
    )
    assert losses.tolist() == pytest.approx([2 * 0.25, 3 * 0.75])


@given(numbers, st.floats(0, 5))
def test_kto_sees_a_gain_of_the_one_kind_as_a_loss_of_the_other(gain, z0):
    desirable, undesirable = (torch.tensor([flag]) for flag in (True, False))
    one = preference.kto_loss(tensor(z0 + gain), desirable, z0=z0)
    other = preference.kto_loss(tensor(z0 - gain), undesirable, z0=z0)
    assert one.item() == pytest.approx(other.item(), abs=1e-12)
    assert 0 <= one.item() <= 1


def test_ktos_baseline_is_a_mean_cut_at_zero_and_carries_no_gradient():
    mismatched = torch.tensor([3.0, -1.0], requires_grad=True)
    assert preference.kto_baseline(mismatched).item() == 1.0
    assert preference.kto_baseline(-mismatched).item() == 0.0
    assert not preference.kto_baseline(mismatched).requires_grad
    log_ratio = torch.tensor([1.0], requires_grad=True)
    preference.kto_loss(log_ratio, torch.tensor([True]), z0=mismatched.mean()).sum().backward()
    assert mismatched.grad is None


# Odds of p = 3/4 are 3, of p = 1/4 are 1/3: the ratio is 9 and sigmoid(log 9) = 9/10.
def test_the_odds_ratio_matches_the_formula():
    loss = preference.odds_ratio_loss(tensor(math.log(3 / 4)), tensor(math.log(1 / 4)))
    assert loss.item() == pytest.approx(-math.log(9 / 10))


@pytest.mark.parametrize("probability", [1e-300, 1e-20, 0.3, 0.4999, 0.5001, 0.9, 1 - 1e-6])
def test_log_odds_are_those_of_exact_arithmetic_on_both_branches(probability):
    expected = math.log(probability) - math.log1p(-probability)
    assert preference.log_odds(tensor(math.log(probability))).item() == pytest.approx(expected, rel=1e-9)


def test_log1mexp_keeps_its_digits_at_both_ends():
    near, far = preference.log1mexp(tensor(-1e-12, -50.0)).tolist()
    assert near == pytest.approx(math.log(1e-12), rel=1e-9)
    assert far == pytest.approx(-math.exp(-50), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certainty_and_impossibility_have_finite_odds_and_gradients(dtype):
    logprobs = torch.tensor([0.0, -1e-8, -1e-6, -0.693, -200.0], dtype=dtype, requires_grad=True)
    loss = preference.odds_ratio_loss(logprobs, logprobs.detach().flip(0))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logprobs.grad.isfinite().all()


# beta (c - r) - gamma = 2 (1 + log(3) / 2) - 2 = log 3.
def test_simpo_matches_the_formula():
    loss = preference.simpo_loss(tensor(-0.5), tensor(-1.5 - LOG3 / 2), beta=2.0, gamma=2.0)
    assert loss.item() == pytest.approx(-math.log(3 / 4))


def test_the_implicit_reward_is_beta_times_the_log_ratio():
    assert preference.implicit_reward(tensor(-3.0), tensor(-5.0), beta=0.1).item() == pytest.approx(0.2)


def test_accuracy_counts_an_equal_pair_as_it_is_told():
    chosen, rejected = tensor(2.0, 1.0, 1.0), tensor(1.0, 1.0, 2.0)
    assert preference.accuracy(chosen, rejected).tolist() == [1.0, 0.5, 0.0]
    assert preference.accuracy(chosen, rejected, equal=0.0).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "loss",
    [
        lambda c, r: preference.bradley_terry_loss(c, r, margin_G=0.3, label_smoothing=0.1),
        lambda c, r: preference.bradley_terry_loss(c, r, margin_G=0.3, tied_G=torch.arange(16) % 2 == 0),
        lambda c, r: preference.centering_penalty(c, r),
        lambda c, r: preference.dpo_loss(c, r, label_smoothing=0.1),
        lambda c, r: preference.dpo_loss(c, r, loss_type="ipo", label_smoothing=0.1),
        lambda c, r: preference.dpo_loss(c, r, loss_type="hinge", label_smoothing=0.1),
        lambda c, r: preference.kto_loss(c - r, torch.arange(16) % 3 == 0, z0=0.4, undesirable_weight=1.3),
        lambda c, r: preference.odds_ratio_loss(-c.exp(), -r.exp()),
        lambda c, r: preference.simpo_loss(c, r, label_smoothing=0.1),
    ],
)
def test_gradients_agree_with_finite_differences(loss):
    check_gradients(loss)
