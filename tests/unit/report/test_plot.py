"""Frames, ticks and bins."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlhf_cluster.functional.statistics import Interval
from rlhf_cluster.report.plot import HEIGHT, WIDTH, Plot, edges, outline, round_ticks, span

values = st.floats(-1e5, 1e5).map(lambda value: round(value, 3))


@given(values, values)
def test_ticks_are_few_and_within_the_axis(low, high):
    assume(high - low > 1e-2)
    ticks = round_ticks(low, high)
    slack = 1e-6 * (high - low)
    assert 1 <= len(ticks) <= 8
    assert low - slack <= min(ticks)
    assert max(ticks) <= high + slack


@given(st.lists(values, min_size=1, max_size=30))
def test_every_value_has_a_bin(found):
    borders = edges(min(found), max(found), most=24)
    assert borders[0] <= min(found) + 1e-6
    assert max(found) < borders[-1] + 1e-6
    assert len(borders) <= 60
    assert sorted(borders) == borders


def test_a_value_that_is_an_edge_belongs_to_the_bin_that_begins_there():
    borders = edges(-2.0, 2.0, most=24)
    assert {-2.0, -1.0, 0.0, 1.0, 2.0} <= set(borders)


@given(st.lists(values | st.sampled_from([float("nan"), float("inf")]), max_size=20))
def test_a_span_is_finite_and_never_empty(found):
    low, high = span(found)
    assert low < high


def test_an_outline_begins_and_ends_on_the_ground():
    assert outline([0, 1, 2], [0.25, 0.75]) == [(0, 0), (0, 0.25), (1, 0.25), (1, 0.75), (2, 0.75), (2, 0)]


def test_marks_lie_within_the_picture_and_unknown_error_bars_are_left_out():
    plot = Plot(("x", 0.0, 10.0), ("y", -1.0, 1.0))
    plot.spread(Interval(5.0, float("nan"), float("nan")), Interval(0.5, 0.25, 0.75), "c0")
    plot.dot(10.0, -1.0, "c0", tip="corner")
    plot.word(10.0, 1.0, "corner", "c0")
    svg = plot.svg("a picture")
    assert svg.count("polyline") == 2, "one error bar, opened and closed"
    assert "nan" not in svg
    xs = [float(found) for found in re.findall(r'c?x="([\d.-]+)"', svg)]
    ys = [float(found) for found in re.findall(r'c?y="([\d.-]+)"', svg)]
    assert all(0 <= x <= WIDTH for x in xs)
    assert all(0 <= y <= HEIGHT for y in ys)
    assert 'text-anchor="end" class="word c0"' in svg, "beside the right edge the word stands on the left"


def test_what_has_one_value_alone_still_has_an_axis():
    assert span([3.0, 3.0]) == (2.5, 3.5)
    assert edges(0.0, 0.0, most=5) == pytest.approx([0.0, 1.0])
