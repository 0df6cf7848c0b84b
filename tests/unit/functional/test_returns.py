"""Generalised advantages and discounted returns, worked out by hand on both layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhf_cluster.functional.returns import discounted, discounted_padded, gae, gae_padded

REWARDS = np.array([0.0, 0.0, 1.0, 2.0])  # a completion of three tokens, then one of a single token
VALUES = np.array([0.5, 0.4, 0.6, 0.5])
LENGTHS = np.array([3, 1])


def test_gae_matches_the_recursion_written_out():
    # gamma 0.9, lambda 0.5, so advantages decay by 0.45.
    delta_2 = 1.0 - 0.6
    delta_1 = 0.0 + 0.9 * 0.6 - 0.4
    delta_0 = 0.0 + 0.9 * 0.4 - 0.5
    expected = [delta_0 + 0.45 * (delta_1 + 0.45 * delta_2), delta_1 + 0.45 * delta_2, delta_2, 2.0 - 0.5]
    advantages, returns = gae(REWARDS, VALUES, LENGTHS, gamma=0.9, lam=0.5)
    np.testing.assert_allclose(advantages, expected)
    np.testing.assert_allclose(returns, np.array(expected) + VALUES)


def test_a_completion_without_tokens_stands_between_others_without_a_trace():
    with_empty = gae(REWARDS, VALUES, np.array([0, 3, 0, 1, 0]))
    np.testing.assert_array_equal(with_empty, gae(REWARDS, VALUES, LENGTHS))
    assert gae(np.zeros(0), np.zeros(0), np.array([0, 0]))[0].shape == (0,)
    assert gae(np.zeros(0), np.zeros(0), np.zeros(0, np.int32))[0].shape == (0,)


def test_discounted_returns_match_the_sum_written_out():
    np.testing.assert_allclose(discounted(np.array([1.0, 2.0, 4.0, 8.0]), LENGTHS, gamma=0.5), [3.0, 4.0, 4.0, 8.0])
    np.testing.assert_allclose(discounted(np.array([1.0, 2.0, 4.0, 8.0]), LENGTHS), [7.0, 6.0, 4.0, 8.0])


@pytest.mark.parametrize("array", [np.array, torch.tensor])
@pytest.mark.parametrize("kind", [bool, int, float])
def test_padding_and_what_others_said_in_between_are_passed_over(array, kind):
    # One row with padding on both sides and a position in the middle that is no action; garbage stands there.
    rewards = array([[9.0, 0.0, np.nan, 0.0, 1.0, 9.0]])
    values = array([[9.0, 0.5, 9.0, 0.4, 0.6, np.nan]])
    mask = np.array([[0, 1, 0, 1, 1, 0]])
    advantages, returns = gae_padded(rewards, values, array(mask.astype(kind)), gamma=0.9, lam=0.5)
    expected = gae(REWARDS[:3], VALUES[:3], np.array([3]), gamma=0.9, lam=0.5)
    for actual, flat in zip((advantages, returns), expected, strict=True):
        np.testing.assert_allclose(np.asarray(actual)[mask > 0], flat, rtol=1e-5)
        assert (np.asarray(actual)[mask == 0] == 0).all()


def test_the_padded_reward_to_go_passes_over_what_is_masked():
    result = discounted_padded(np.array([[1.0, 5.0, 2.0]]), np.array([[True, False, True]]), gamma=0.5)
    np.testing.assert_allclose(result, [[2.0, 0.0, 2.0]])
