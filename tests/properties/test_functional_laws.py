"""Laws of the functional maths: what holds for all rewards, ratios, log-probabilities and lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from rlhf_cluster.functional.advantages import group_relative, leave_one_out, whiten
from rlhf_cluster.functional.clipping import is_clipped, surrogate_loss
from rlhf_cluster.functional.importance import masked_weight, sequence_weight, truncated_weight
from rlhf_cluster.functional.kl import adapted_coef, estimate
from rlhf_cluster.functional.reduce import normaliser, relative_weights, token_weights
from rlhf_cluster.functional.returns import discounted, gae, gae_padded
from rlhf_cluster.functional.rewards import RunningMoments, per_token, soft_overlong_penalty

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


@st.composite
def episodes(draw):
    """Lengths of completions, with a reward and a value for each of their tokens."""
    lengths = np.array(draw(st.lists(st.integers(0, 7), min_size=1, max_size=5)))
    columns = draw(st_np.arrays(np.float64, (2, int(lengths.sum())), elements=st.floats(-10, 10, width=32)))
    return lengths, columns[0], columns[1]


@given(episode=episodes(), gamma=st.floats(0, 1))
def test_at_lambda_one_the_advantage_is_the_return_less_the_value(episode, gamma):
    lengths, rewards_N, values_N = episode
    advantages_N, returns_N = gae(rewards_N, values_N, lengths, gamma=gamma, lam=1.0)
    np.testing.assert_allclose(returns_N, discounted(rewards_N, lengths, gamma=gamma), atol=1e-9)
    np.testing.assert_allclose(advantages_N, returns_N - values_N, atol=1e-9)


@given(episode=episodes(), gamma=st.floats(0, 1))
def test_at_lambda_zero_the_advantage_is_the_error_of_one_step(episode, gamma):
    lengths, rewards_N, values_N = episode
    ends = np.cumsum(lengths)[lengths > 0] - 1
    next_N = np.append(values_N[1:], 0.0)[: len(values_N)]
    next_N[ends] = 0.0
    advantages_N, _ = gae(rewards_N, values_N, lengths, gamma=gamma, lam=0.0)
    np.testing.assert_allclose(advantages_N, rewards_N + gamma * next_N - values_N, atol=1e-12)


@given(episode=episodes(), gamma=st.floats(0, 1), lam=st.floats(0, 1), data=st.data())
def test_padded_and_flat_advantages_are_the_same_wherever_the_padding_stands(episode, gamma, lam, data):
    lengths, rewards_N, values_N = episode
    width = int(lengths.max()) + 3
    mask_BT = np.zeros((len(lengths), width), dtype=bool)
    for row, length in zip(mask_BT, lengths, strict=True):
        row[data.draw(st.permutations(range(width)))[:length]] = True
    rewards_BT, values_BT = np.full(mask_BT.shape, 77.0), np.full(mask_BT.shape, -55.0)
    rewards_BT[mask_BT], values_BT[mask_BT] = rewards_N, values_N
    flat = gae(rewards_N, values_N, lengths, gamma=gamma, lam=lam)
    padded = gae_padded(rewards_BT, values_BT, mask_BT, gamma=gamma, lam=lam)
    on_tensors = gae_padded(*map(torch.from_numpy, (rewards_BT, values_BT, mask_BT)), gamma=gamma, lam=lam)
    for flat_N, padded_BT, tensor_BT in zip(flat, padded, on_tensors, strict=True):
        np.testing.assert_array_equal(padded_BT[mask_BT], flat_N)
        np.testing.assert_array_equal(tensor_BT.numpy(), padded_BT)


@given(rewards_G=rewards)
def test_the_rewards_of_tokens_sum_to_those_of_their_completions(rewards_G):
    lengths = np.arange(len(rewards_G)) % 4
    total = rewards_G[lengths > 0].sum() - 0.5 * lengths.sum()
    assert per_token(rewards_G, lengths, kl_N=np.ones(lengths.sum()), kl_coef=0.5).sum() == pytest.approx(total)


@given(values=rewards, shift=st.floats(-100, 100), ddof=st.sampled_from([0, 1]))
def test_whitened_values_have_mean_zero_and_at_most_deviation_one_and_ignore_a_shift(values, shift, ddof):
    whitened = whiten(values, ddof=ddof)
    assert whitened.mean() == pytest.approx(0.0, abs=1e-6)
    assert whitened.std(ddof=ddof) <= 1 + 1e-9
    np.testing.assert_allclose(
        whiten(values + shift, ddof=ddof, eps=1.0), whiten(values, ddof=ddof, eps=1.0), atol=1e-6
    )


@given(values=rewards, data=st.data())
def test_whitening_does_not_see_what_is_masked(values, data):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    np.testing.assert_allclose(whiten(values, mask)[mask], whiten(values[mask]), atol=1e-9)


@given(values=rewards, cut=st.integers(0, 16))
def test_running_moments_do_not_depend_on_how_the_values_were_divided(values, cut):
    moments = RunningMoments().with_values(values[:cut]).with_values(values[cut:])
    assert moments.mean == pytest.approx(values.mean(), abs=1e-9)
    assert moments.std() == pytest.approx(values.std(ddof=1), abs=1e-6)


@given(lengths=st_np.arrays(np.int64, 5, elements=st.integers(0, 300)), cache=st.integers(1, 100))
def test_the_overlong_penalty_never_pays_for_length(lengths, cache):
    lengths.sort()
    penalty = soft_overlong_penalty(lengths, max_length=100, cache=cache)
    assert ((penalty <= 0) & (penalty >= -1)).all()
    assert (np.diff(penalty) <= 0).all()


@given(columns=logprobs, low=st.floats(0, 1), high=st.floats(1, 10))
def test_masked_weights_are_zero_or_between_their_bounds(columns, low, high):
    weight = masked_weight(torch.from_numpy(columns[0]), torch.from_numpy(columns[1]), low=low, high=high).numpy()
    assert ((weight == 0) | ((weight >= low * (1 - 1e-6)) & (weight <= high * (1 + 1e-6)))).all()


@given(columns=logprobs, mean=st.sampled_from(["product", "geometric"]))
def test_a_sequence_of_one_token_has_the_weight_of_that_token(columns, mean):
    old, behaviour = map(torch.from_numpy, columns)
    weight = sequence_weight(old, behaviour, torch.arange(8), num_sequences=8, mean=mean, cap=2.0)
    torch.testing.assert_close(weight, truncated_weight(old, behaviour, cap=2.0))


@given(kl=st.floats(-10, 100), target=st.floats(0.1, 20), num_steps=st.integers(1, 512))
def test_the_kl_coefficient_rises_exactly_when_the_kl_is_above_its_target(kl, target, num_steps):
    coef = adapted_coef(0.1, kl, target, num_steps, 10_000)
    assert 0.1 * (1 - 0.2 * num_steps / 10_000) <= coef <= 0.1 * (1 + 0.2 * num_steps / 10_000)
    assert (coef > 0.1) <= (kl > target)
    assert (coef < 0.1) <= (kl < target)
