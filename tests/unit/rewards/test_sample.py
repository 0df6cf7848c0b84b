"""What counts as a reward, and what a failure says."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.rewards.sample import FLOAT32_MAX, Failure, failure_of, outcome_of


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError

    def __float__(self) -> float:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "reward"),
    [(1, 1.0), (True, 1.0), (False, 0.0), (np.float32(0.5), 0.5), (np.array(2), 2.0), (Decimal("0.25"), 0.25)],
)
def test_numbers_of_any_kind_are_rewards(value, reward):
    outcome = outcome_of(value)
    assert outcome == reward
    assert type(outcome) is float


@pytest.mark.parametrize(
    "value",
    ["1.0", b"1", None, float("nan"), float("-inf"), 1e300, 10**400, [1.0], np.ones(2), 1j, {"reward": 1.0}, Rude()],
)
def test_anything_else_is_a_failure_that_shows_the_value(value):
    outcome = outcome_of(value)
    assert isinstance(outcome, Failure)
    assert outcome.kind == "not_a_number"
    assert type(value).__name__ in outcome.message


@settings(deadline=None)
@given(st.floats())
def test_a_float_is_its_own_reward_or_a_failure(value):
    outcome = outcome_of(value)
    assert outcome == value if abs(value) <= FLOAT32_MAX else isinstance(outcome, Failure)


def test_messages_stay_on_one_short_line():
    failure = failure_of(ValueError("a\nb " + "long " * 1000))
    assert failure.message.startswith("ValueError: a b long")
    assert len(failure.message) < 350
