"""Advantages against numbers worked out by hand, on numpy and on tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhf_cluster.functional.advantages import group_relative, leave_one_out, whiten

REWARDS = [1.0, 2.0, 3.0, 6.0]  # mean 3, squared deviations 4 + 1 + 0 + 9 = 14


@pytest.mark.parametrize("array", [np.array, lambda values: torch.tensor(values, dtype=torch.float64)])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"scale": "none"}, [-2.0, -1.0, 0.0, 3.0]),
        ({"ddof": 1, "eps": 0.0}, np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(14 / 3)),
        ({"ddof": 0, "eps": 0.0}, np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(14 / 4)),
        ({"ddof": 0, "eps": 0.5}, np.array([-2.0, -1.0, 0.0, 3.0]) / (np.sqrt(14 / 4) + 0.5)),
    ],
)
def test_group_relative_matches_the_formula(array, arguments, expected):
    result = group_relative(array(REWARDS), **arguments)
    assert isinstance(result, type(array(REWARDS)))
    np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-12)


def test_leading_axes_are_independent_groups():
    rewards = np.array([REWARDS, [0.0, 0.0, 1.0, 1.0]])
    np.testing.assert_allclose(group_relative(rewards), np.stack([group_relative(row) for row in rewards]))


@pytest.mark.parametrize("scale", ["std", "none"])
def test_equal_rewards_give_exact_zeros_even_where_their_mean_rounds(scale):
    rewards = np.full(3, 0.1, dtype=np.float32)
    assert (group_relative(rewards, scale=scale) == 0).all()


def test_a_group_of_one_has_no_advantage():
    assert group_relative(np.array([5.0])).tolist() == [0.0]


def test_leave_one_out_subtracts_the_mean_of_the_others():
    expected = [1 - 11 / 3, 2 - 10 / 3, 3 - 9 / 3, 6 - 6 / 3]
    np.testing.assert_allclose(leave_one_out(np.array(REWARDS)), expected)


def test_leave_one_out_refuses_a_group_of_one():
    with pytest.raises(ValueError, match="at least 2"):
        leave_one_out(np.array([1.0]))


@pytest.mark.parametrize("array", [np.array, lambda values: torch.tensor(values)])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Of 1, 2, 3, 6: mean 3, squared deviations summing to 14, over n - 1 = 3 or n = 4.
        ({}, np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(14 / 3 + 1e-8)),
        ({"ddof": 0}, np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(14 / 4 + 1e-8)),
        ({"eps": 0.5}, np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(14 / 3 + 0.5)),
        ({"shift_mean": False, "ddof": 0}, np.array([-2.0, -1.0, 0.0, 3.0]) / np.sqrt(14 / 4 + 1e-8) + 3.0),
    ],
)
def test_whitening_matches_the_formula_and_leaves_zeros_outside_the_mask(array, arguments, expected):
    values = array([[1.0, np.nan, 2.0], [3.0, 6.0, 99.0]])
    mask = array([[True, False, True], [True, True, False]])
    result = whiten(values, mask, **arguments)
    np.testing.assert_allclose(np.asarray(result)[np.asarray(mask)], expected, rtol=1e-6)
    assert (np.asarray(result)[~np.asarray(mask)] == 0).all()
    np.testing.assert_allclose(np.asarray(whiten(array(REWARDS), **arguments)), expected, rtol=1e-6)


def test_whitening_without_a_mask_lets_a_nan_show():
    assert np.isnan(whiten(np.array([1.0, np.nan]))).all()
