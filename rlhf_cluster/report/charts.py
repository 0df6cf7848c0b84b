"""The pictures of a report: one reward against another or against the KL, histograms, curves of training, and what a
reward model's probabilities are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_cluster.driver.observers.figures import figure
from rlhf_cluster.functional.statistics import Interval
from rlhf_cluster.report.evaluations import interval_of
from rlhf_cluster.report.html import Html, element
from rlhf_cluster.report.plot import Plot, colour, edges, outline, span

NUM_BINS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]
    style: str


def scatter(
    named: Sequence[tuple[int, str, Interval, Interval]], *, title: str, x: str, y: str, include_x: Sequence[float] = ()
) -> Html:
    """A mark with error bars for each (colour, name, x, y)."""
    xs = [value for _, _, across, _ in named for value in across]
    ys = [value for _, _, _, up in named for value in up]
    plot = Plot((x, *span(xs, include=include_x)), (y, *span(ys)))
    for index, name, across, up in named:
        plot.spread(across, up, colour(index))
        tip = f"{name}: {x} {figure(across.value)}, {y} {figure(up.value)}"
        plot.dot(across.value, up.value, colour(index), tip=tip, radius=5)
        plot.word(across.value, up.value, name, colour(index))
    return _figure(plot, title)


def histograms(named: Sequence[tuple[str, str, Sequence[float]]], *, title: str, x: str) -> Html:
    """The share of values in each bin, a line for each (style, name, values)."""
    finite = [(style, name, [v for v in values if math.isfinite(v)]) for style, name, values in named]
    every = [value for _, _, values in finite for value in values]
    borders = edges(min(every), max(every), most=NUM_BINS)
    shares = [(style, name, np.histogram(values, borders)[0] / max(len(values), 1)) for style, name, values in finite]
    plot = Plot((x, borders[0], borders[-1]), ("share", 0.0, 1.06 * max(float(share.max()) for _, _, share in shares)))
    for style, _, share in shares:
        plot.line(outline(borders, share.tolist()), f"{style} filled")
    return _figure(plot, title, legend=[(style, name) for style, name, _ in shares])


def lines(drawn: Sequence[Line], *, title: str, x: str, y: str) -> Html:
    """Curves over one x; a dot for each of few points."""
    points = [point for line in drawn for point in line.points]
    low, high = span([at for at, _ in points], margin=0.02)
    plot = Plot((x, low, high), (y, *span([value for _, value in points])))
    for line in drawn:
        plot.line(line.points, line.style)
        for at, value in line.points if len(line.points) <= 20 else ():
            plot.dot(at, value, line.style, tip=f"{line.name}, {x} {at}: {figure(value)}", radius=3)
    return _figure(plot, title, legend=[(line.style, line.name) for line in drawn])


def calibration(curve: Mapping[str, Sequence[float | None]], *, title: str) -> Html:
    """How often what the model was so sure of was so; on the diagonal it means what it says."""
    plot = Plot(("probability that it is preferred", 0.0, 1.0), ("how often it was", 0.0, 1.0))
    plot.line([(0, 0), (1, 1)], "faint dashed")
    rows = zip(curve["predicted"], curve["observed"], curve["counts"], strict=True)
    found = [(said, was, count) for said, was, count in rows if said is not None and was is not None]
    plot.line([(said, was) for said, was, _ in found], "c0")
    most = max((count or 0 for *_, count in found), default=1)
    for said, was, count in found:
        tip = f"said {said:.2f}, was {was:.2f}, of {count} pairs"
        plot.dot(said, was, "c0", tip=tip, radius=3 + 4 * ((count or 0) / most) ** 0.5)
    return _figure(plot, title)


def accuracy_by_margin(bins: Sequence[Mapping[str, Any]], *, title: str, x: str) -> Html:
    """A bar for each bin, with Wilson's interval, and below it the margins that it holds."""
    names = [f"{told['least']:.1f} to {told['largest']:.1f}" for told in bins]
    plot = Plot((x, 0.0, float(len(bins))), ("accuracy", 0.0, 1.05), x_names=names)
    for number, told in enumerate(bins):
        accuracy = interval_of(told["accuracy"])
        tip = f"{figure(told['least'])} to {figure(told['largest'])}: {accuracy.value:.2f} of {told['num_pairs']} pairs"
        plot.bar(number + 0.12, number + 0.88, accuracy.value, "c0", tip=tip)
        middle = Interval(number + 0.5, math.nan, math.nan)
        plot.spread(middle, accuracy, "ink")
    plot.line([(0, 0.5), (len(bins), 0.5)], "faint dashed")
    return _figure(plot, title)


def _figure(plot: Plot, title: str, *, legend: Sequence[tuple[str, str]] = ()) -> Html:
    keys = [element("span", element("i", class_=f"key {style}"), name) for style, name in legend]
    return element(
        "figure",
        element("figcaption", title),
        plot.svg(title),
        element("p", keys, class_="legend") if keys else "",
    )
