"""Sums over completions: against a loop, with empty completions, and with their gradients."""

from __future__ import annotations

import pytest
import torch

from rlhf_cluster.functional import segments

VALUES = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
SEQUENCE = torch.tensor([0, 0, 2, 2, 2])  # completion 1 of 4 has no tokens, nor has the last


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (segments.sums, [3.0, 0.0, 28.0, 0.0]),
        (segments.means, [1.5, 0.0, 28 / 3, 0.0]),
        (segments.first, [1.0, 0.0, 4.0, 0.0]),
    ],
)
def test_each_completion_has_its_own_and_an_empty_one_has_zero(function, expected):
    torch.testing.assert_close(function(VALUES, SEQUENCE, 4), torch.tensor(expected, dtype=torch.float64))
    assert function(VALUES[:0], SEQUENCE[:0], 2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("function", [segments.sums, segments.means, segments.first])
def test_gradients_agree_with_finite_differences(function):
    values = VALUES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda values_N: function(values_N, SEQUENCE, 4), values)


def test_a_segment_starts_where_the_number_changes():
    assert segments.starts(SEQUENCE).tolist() == [True, False, True, False, False]


def test_the_first_value_is_not_touched_by_what_follows():
    values = torch.tensor([1.0, float("nan")])
    assert segments.first(values, torch.tensor([0, 0]), 1).item() == 1.0
