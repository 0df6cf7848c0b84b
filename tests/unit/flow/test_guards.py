"""Guards on figures of steps: when they see something, and that they say what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.guards import DRIFTING, ENTROPY, LENGTH, REPETITION, TRUNCATED, GuardSettings, drifts, kl_runaway

SETTINGS = GuardSettings()
KLS = st.lists(st.floats(0.0, 50.0), max_size=12)


def drifting(name: str, first: float, last: float, settings: GuardSettings = SETTINGS) -> list[str]:
    num = settings.drift_steps
    return [each.guard for each in drifts(settings, first={name: [first] * num}, last={name: [last] * num})]


def test_a_kl_above_its_bound_for_some_steps_in_a_row_is_a_runaway_and_says_its_numbers():
    found = kl_runaway(SETTINGS, [0.1, 2.5, 3.0, 2.5, 4.0, 7.5])
    assert (found.guard, found.deed) == ("kl_runaway", "stop")
    assert found.sentence == (
        "the KL to the reference was above max_kl = 2 nats/token in the last 5 steps, 7.5 in the last one: raise "
        "algorithm.kl_coef, or lower the learning rate"
    )


@pytest.mark.parametrize("kls", [[], [9.0] * 4, [9.0, 9.0, 1.9, 9.0, 9.0], [2.0] * 9], ids=str)
def test_a_kl_that_was_below_its_bound_lately_is_none(kls):
    assert kl_runaway(SETTINGS, kls) is None


@given(KLS, st.floats(0.1, 20.0), st.floats(1.0, 3.0), st.integers(1, 6), st.integers(0, 3))
def test_a_laxer_bound_on_kl_never_sees_more(kls, bound, factor, steps, more_steps):
    strict = GuardSettings(max_kl=bound, kl_steps=steps)
    lax = GuardSettings(max_kl=bound * factor, kl_steps=steps + more_steps)
    assert kl_runaway(lax, kls) is None or kl_runaway(strict, kls) is not None


@pytest.mark.parametrize(
    ("name", "first", "well", "ill", "guard"),
    [
        (LENGTH, 40.0, 119.0, 121.0, "length"),
        (LENGTH, 40.0, 14.0, 13.0, "length"),
        (REPETITION, 0.1, 0.5, 0.51, "repetition"),
        (ENTROPY, 2.0, 0.21, 0.19, "entropy"),
        (TRUNCATED, 0.3, 0.8, 0.81, "truncation"),
    ],
)
def test_a_figure_that_has_left_what_it_was_at_first_is_a_drift(name, first, well, ill, guard):
    assert drifting(name, first, well) == []
    assert drifting(name, first, ill) == [guard]


def test_a_job_that_has_always_been_so_does_not_drift():
    assert drifting(REPETITION, 0.8, 0.9) == []
    assert drifting(TRUNCATED, 1.0, 1.0) == []


def test_too_few_steps_say_nothing():
    first, last = {LENGTH: [10.0] * 4}, {LENGTH: [90.0] * 4}
    assert drifts(SETTINGS, first=first, last=last) == []


def test_a_drift_says_its_numbers():
    [found] = drifts(SETTINGS, first={LENGTH: [11.0] * 5}, last={LENGTH: [50.0] * 5})
    assert (found.deed, found.sentence) == (
        "warn",
        "completions are longer than at first: 50.0 tokens over 5 steps against 11.0, and max_length_ratio = 3: read "
        "some of them, the reward may pay for their length",
    )


def test_a_guard_that_is_off_does_not_look():
    off = GuardSettings(on_kl_runaway="off", on_drift="off")
    assert kl_runaway(off, [99.0] * 9) is None
    assert drifting(LENGTH, 1.0, 99.0, off) == []


@given(st.sampled_from(DRIFTING), st.floats(0.01, 0.45), st.floats(0.0, 0.01))
def test_a_figure_that_stays_as_it_was_never_drifts(name, level, noise):
    assert drifting(name, level, level + noise) == []


@given(st.floats(1.0, 1000.0), st.floats(0.001, 1000.0), st.floats(1.01, 20.0), st.floats(1.0, 5.0))
def test_a_wider_bound_on_length_never_sees_more(first, share, ratio, factor):
    strict, lax = GuardSettings(max_length_ratio=ratio), GuardSettings(max_length_ratio=ratio * factor)
    assert not drifting(LENGTH, first, first * share, lax) or drifting(LENGTH, first, first * share, strict)
