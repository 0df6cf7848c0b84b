"""Token weights of the three means, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_cluster.functional.reduce import normaliser, relative_weights, token_weights

LENGTHS = [np.array([1, 3]), np.array([2, 2])]  # 8 tokens of 4 completions


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"aggregation": "token"}, [[1 / 8] * 4, [1 / 8] * 4]),
        ({"aggregation": "sequence"}, [[1 / 4, 1 / 12, 1 / 12, 1 / 12], [1 / 8] * 4]),
        ({"aggregation": "constant", "constant_length": 5}, [[1 / 20] * 4, [1 / 20] * 4]),
    ],
)
def test_weights_match_the_mean_they_stand_for(arguments, expected):
    weights = token_weights(LENGTHS, **arguments)
    assert all(group.dtype == np.float32 for group in weights)
    for group, row in zip(weights, expected, strict=True):
        np.testing.assert_allclose(group, row, rtol=1e-6)


@pytest.mark.parametrize(
    ("aggregation", "expected", "divisor"),
    [
        ("token", [[1.0] * 4, [1.0] * 4], 8),
        ("sequence", [[1.0, 1 / 3, 1 / 3, 1 / 3], [1 / 2] * 4], 4),
        ("constant", [[1.0] * 4, [1.0] * 4], 20),
    ],
)
def test_a_group_knows_its_weights_alone_and_the_batch_one_divisor(aggregation, expected, divisor):
    for group, row in zip(LENGTHS, expected, strict=True):
        (alone,) = relative_weights([group], aggregation=aggregation)
        assert alone.dtype == np.float32
        np.testing.assert_allclose(alone, row, rtol=1e-7)
    constant_length = 5 if aggregation == "constant" else None
    assert normaliser(LENGTHS, aggregation=aggregation, constant_length=constant_length) == divisor


@pytest.mark.parametrize("aggregation", ["token", "sequence", "constant"])
def test_the_divisor_of_nothing_can_still_be_divided_by(aggregation):
    assert normaliser([], aggregation=aggregation, constant_length=3) >= 1


def test_completions_without_tokens_do_not_thin_the_sequence_mean():
    (weights,) = token_weights([np.array([0, 2, 0])], aggregation="sequence")
    assert weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_empty_batches_have_empty_weights(aggregation):
    assert token_weights([], aggregation=aggregation) == []
    assert [len(group) for group in token_weights([np.array([0, 0])], aggregation=aggregation)] == [0]


def test_constant_without_a_length_says_what_to_pass():
    with pytest.raises(ValueError, match="constant_length"):
        token_weights(LENGTHS, aggregation="constant")


def test_an_unknown_aggregation_is_refused_by_name():
    with pytest.raises(ValueError, match="median"):
        token_weights(LENGTHS, aggregation="median")
    with pytest.raises(ValueError, match="median"):
        relative_weights(LENGTHS, aggregation="median")
