"""Laws of the functional maths: what holds for all rewards, ratios, log-probabilities and lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from rlhf_cluster.functional.advantages import group_relative, leave_one_out
from rlhf_cluster.functional.clipping import is_clipped, surrogate_loss
from rlhf_cluster.functional.importance import truncated_weight
from rlhf_cluster.functional.kl import estimate
from rlhf_cluster.functional.reduce import normaliser, relative_weights, token_weights

rewards = st_np.arrays(np.float64, st.integers(2, 16), elements=st.floats(-100, 100, width=32))
logprobs = st_np.arrays(np.float32, (2, 8), elements=st.floats(-50, 0, width=32))
groupings = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=6)


@given(rewards_G=rewards, scale=st.sampled_from(["std", "none"]))
def test_group_advantages_sum_to_zero(rewards_G, scale):
    assert group_relative(rewards_G, scale=scale).sum() == pytest.approx(0.0, abs=1e-9)


@given(rewards_G=rewards, shift=st.floats(-1000, 1000), scale=st.sampled_from(["std", "none"]))
def test_group_advantages_do_not_change_with_a_constant_added_to_all_rewards(rewards_G, shift, scale):
    moved_G = group_relative(rewards_G + shift, scale=scale, eps=1.0)
    np.testing.assert_allclose(moved_G, group_relative(rewards_G, scale=scale, eps=1.0), atol=1e-8)


@given(rewards_G=rewards, factor=st.floats(0.01, 100))
def test_scaled_advantages_do_not_change_with_the_unit_of_the_reward(rewards_G, factor):
    scaled_G = group_relative(rewards_G * factor, eps=factor)
    np.testing.assert_allclose(scaled_G, group_relative(rewards_G, eps=1.0), atol=1e-9)


@given(rewards_G=rewards)
def test_leave_one_out_is_the_unscaled_group_advantage_stretched(rewards_G):
    num_completions = len(rewards_G)
    others_G = (rewards_G.sum() - rewards_G) / (num_completions - 1)
    np.testing.assert_allclose(leave_one_out(rewards_G), rewards_G - others_G, atol=1e-9)


@given(
    ratio=st.floats(0, 50),
    advantage=st.floats(-10, 10, allow_subnormal=False),
    low=st.floats(0, 0.9),
    high=st.floats(0, 2),
)
def test_clipping_never_promises_more_than_the_unclipped_gain_and_bounds_it(ratio, advantage, low, high):
    ratio_N = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
    advantages_N = torch.tensor([advantage], dtype=torch.float64)
    loss_N = surrogate_loss(ratio_N, advantages_N, low=low, high=high)
    loss_N.sum().backward()
    assert loss_N.item() >= -ratio * advantage
    assert loss_N.item() >= -max((1 + high) * advantage, (1 - low) * advantage)
    if is_clipped(ratio_N, advantages_N, low=low, high=high).item():
        assert ratio_N.grad.item() == 0.0
    elif not (ratio == 1 - low or ratio == 1 + high):
        assert ratio_N.grad.item() == -advantage


@given(columns=logprobs)
def test_k2_and_k3_are_never_negative_and_k3_is_zero_where_the_policies_agree(columns):
    policy, reference = columns
    for estimator in ("k2", "k3"):
        assert (estimate(policy, reference, estimator=estimator) >= 0).all()
        assert (estimate(torch.from_numpy(policy), torch.from_numpy(reference), estimator=estimator) >= 0).all()
    assert (estimate(policy, policy, estimator="k3") == 0).all()


@given(gap=st_np.arrays(np.float32, 64, elements=st.floats(-(2**-10), 2**-10, width=32)))
def test_k3_is_not_negative_where_policies_nearly_agree(gap):
    assert (estimate(gap, np.zeros_like(gap), estimator="k3") >= 0).all()
    assert (estimate(torch.from_numpy(gap), torch.zeros(64), estimator="k3") >= 0).all()


@given(columns=logprobs, cap=st.floats(0.5, 10))
def test_truncated_weights_lie_between_zero_and_the_cap(columns, cap):
    weight = truncated_weight(torch.from_numpy(columns[0]), torch.from_numpy(columns[1]), cap=cap)
    assert ((weight > 0) & (weight <= cap * (1 + 1e-6))).all()


@given(lengths=groupings, aggregation=st.sampled_from(["token", "sequence"]))
def test_token_weights_sum_to_one(lengths, aggregation):
    weights = token_weights([np.array(group) for group in lengths], aggregation=aggregation)
    assert sum(group.sum(dtype=np.float64) for group in weights) == pytest.approx(1.0, rel=1e-5)


@given(lengths=groupings, aggregation=st.sampled_from(["token", "sequence", "constant"]))
def test_relative_weights_over_the_divisor_are_the_token_weights(lengths, aggregation):
    groups = [np.array(group) for group in lengths]
    constant_length = 40 if aggregation == "constant" else None
    divisor = normaliser(groups, aggregation=aggregation, constant_length=constant_length)
    whole = token_weights(groups, aggregation=aggregation, constant_length=constant_length)
    for group, weights in zip(groups, whole, strict=True):
        (alone,) = relative_weights([group], aggregation=aggregation)
        np.testing.assert_allclose(alone / divisor, weights, rtol=1e-6)


@given(lengths=groupings)
def test_constant_token_weights_sum_to_the_mean_length_over_the_constant(lengths):
    flat = [length for group in lengths for length in group]
    weights = token_weights([np.array(group) for group in lengths], aggregation="constant", constant_length=40)
    assert sum(group.sum(dtype=np.float64) for group in weights) == pytest.approx(np.mean(flat) / 40, rel=1e-5)


@given(lengths=groupings, aggregation=st.sampled_from(["token", "sequence", "constant"]))
def test_token_weights_do_not_depend_on_the_grouping(lengths, aggregation):
    constant_length = 40 if aggregation == "constant" else None
    flat = np.concatenate([np.array(group) for group in lengths])
    grouped = token_weights(
        [np.array(group) for group in lengths], aggregation=aggregation, constant_length=constant_length
    )
    (together,) = token_weights([flat], aggregation=aggregation, constant_length=constant_length)
    np.testing.assert_array_equal(np.concatenate(grouped), together)
