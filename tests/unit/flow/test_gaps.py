"""The histogram of usual gaps between tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.flow.gaps import GROWTH, NUM_KEPT, SHORTEST_S, GapHistogram


def filled(gaps_s):
    gaps = GapHistogram()
    for gap_s in gaps_s:
        gaps.add(gap_s)
    return gaps


def test_without_gaps_and_with_the_shortest_ones_it_is_zero():
    assert filled([]).p99_s == 0
    assert filled([0.0, SHORTEST_S]).p99_s == 0


def test_one_long_gap_in_a_hundred_does_not_count():
    assert filled([1.0] * 99 + [60.0]).p99_s == pytest.approx(1.0, rel=GROWTH - 1)
    assert filled([1.0] * 98 + [60.0] * 2).p99_s == pytest.approx(60.0, rel=GROWTH - 1)


def test_what_was_usual_long_ago_is_forgotten():
    gaps = filled([30.0] * NUM_KEPT + [1.0] * 10 * NUM_KEPT)
    assert gaps.p99_s == pytest.approx(1.0, rel=GROWTH - 1)


@given(st.lists(st.floats(SHORTEST_S, 1e4), min_size=1, max_size=99))
def test_it_is_never_below_and_hardly_above_the_longest_of_few(gaps_s):
    assert max(gaps_s) * (1 - 1e-9) <= filled(gaps_s).p99_s <= max(gaps_s) * GROWTH * (1 + 1e-9) or max(
        gaps_s
    ) == pytest.approx(SHORTEST_S)
