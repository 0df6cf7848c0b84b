"""One verdict from an answer for each order: a leaning to the first place cancels, and is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.rewards.judges.base import Verdict, averaged
from rlhf_cluster.rewards.judges.letters import letter_preference
from rlhf_cluster.rewards.sample import Failure

P = st.floats(0, 1)
LOST = Failure(kind="unavailable", message="away")


@given(in_order=P, swapped=P)
def test_turning_the_pair_round_turns_the_verdict_round_and_leaves_the_bias(in_order, swapped):
    one, other = averaged(in_order, swapped), averaged(swapped, in_order)
    assert isinstance(one, Verdict)
    assert isinstance(other, Verdict)
    assert 0 <= one.p_a <= 1
    assert one.p_a + other.p_a == pytest.approx(1)
    assert one.position_bias == pytest.approx(other.position_bias)


@given(p_a=st.floats(0.2, 0.8), leaning=st.floats(-0.2, 0.2))
def test_a_constant_leaning_to_the_first_place_cancels_and_is_told(p_a, leaning):
    verdict = averaged(p_a + leaning, (1 - p_a) + leaning)
    assert isinstance(verdict, Verdict)
    assert verdict.p_a == pytest.approx(p_a)
    assert verdict.position_bias == pytest.approx(leaning, abs=1e-12)


@pytest.mark.parametrize("answers", [(LOST, 0.5), (0.5, LOST)])
def test_a_failure_in_one_order_is_no_verdict(answers):
    assert averaged(*answers) == LOST


def test_letters_count_with_and_without_a_space_and_are_normalised():
    logprobs = [("A", -1.6094379), (" A", -2.3025851), ("B", -2.3025851), ("Neither", -0.5)]  # 0.2, 0.1, 0.1, 0.6
    assert letter_preference(logprobs, min_mass=0.05) == pytest.approx(0.75)


def test_a_letter_that_is_not_listed_counts_as_the_least_likely_that_is():
    logprobs = [("A", -0.6931472), ("I", -2.3025851), ("The", -4.6051702)]  # 0.5, 0.1, 0.01
    assert letter_preference(logprobs, min_mass=0.05) == pytest.approx(0.5 / 0.51)


@pytest.mark.parametrize("logprobs", [[("Well", -0.1), ("A", -4.0)], [("Well", -0.1)]])
def test_a_model_that_would_rather_say_something_else_has_not_judged(logprobs):
    failure = letter_preference(logprobs, min_mass=0.05)
    assert isinstance(failure, Failure)
    assert "likelier are 'Well'" in failure.message
