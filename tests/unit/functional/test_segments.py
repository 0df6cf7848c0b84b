"""Sums, means and firsts of sequences, empty ones among them."""

from __future__ import annotations

import pytest
import torch

from rlhf_cluster.functional import segments

VALUES = [1.0, 2.0, 4.0, 8.0]
SEQUENCES = torch.tensor([0, 0, 2, 2])  # sequences 1 and 3 have no tokens


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        (segments.sums, [3.0, 0.0, 12.0, 0.0]),
        (segments.means, [1.5, 0.0, 6.0, 0.0]),
        (segments.first, [1.0, 0.0, 4.0, 0.0]),
    ],
)
def test_each_sequence_has_its_own_number_and_an_empty_one_zero(over, expected):
    assert over(torch.tensor(VALUES), SEQUENCES, num_sequences=4).tolist() == expected
    assert over(torch.zeros(0), torch.zeros(0, dtype=torch.int64), num_sequences=2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("over", [segments.sums, segments.means, segments.first])
def test_gradients_agree_with_finite_differences(over):
    values = torch.tensor(VALUES, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: over(v, SEQUENCES, num_sequences=4), values)
