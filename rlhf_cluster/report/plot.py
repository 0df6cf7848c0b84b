"""A frame to plot in, as SVG: two axes with round ticks, and marks at values. Colours are the page's, by CSS class, so
a picture follows the theme of the page and its print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rlhf_cluster.driver.observers.figures import figure
from rlhf_cluster.functional.statistics import Interval
from rlhf_cluster.report.html import Html, element

WIDTH, HEIGHT = 440, 300
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 44
NUM_COLOURS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A stretch of values on a stretch of the picture."""

    label: str
    low: float
    high: float
    start: float
    """Where `low` is, in units of the picture."""
    end: float

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, -0.02), 1.02) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        return round_ticks(self.low, self.high)


class Plot:
    """Gathers marks; `svg` puts the frame around them."""

    def __init__(
        self, x: tuple[str, float, float], y: tuple[str, float, float], *, x_names: Sequence[str] = ()
    ) -> None:
        """Label, least and largest value of each axis; `x_names` stand in place of numbers, in the middle of the
        stretches between whole ones."""
        self._x_names = [(number + 0.5, name) for number, name in enumerate(x_names)]
        self.x = Axis(label=x[0], low=x[1], high=x[2], start=LEFT, end=WIDTH - RIGHT)
        self.y = Axis(label=y[0], low=y[1], high=y[2], start=HEIGHT - BOTTOM, end=TOP)
        self._marks: list[Html] = []

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        if points:
            told = " ".join(f"{self.x.place(x):.1f},{self.y.place(y):.1f}" for x, y in points)
            self._marks.append(element("polyline", points=told, class_=f"line {style}"))

    def dot(self, x: float, y: float, style: str, *, tip: str, radius: float = 4.0) -> None:
        told = element("title", tip)
        self._marks.append(
            element("circle", told, cx=self.x.place(x), cy=self.y.place(y), r=radius, class_=f"dot {style}")
        )

    def bar(self, x_low: float, x_high: float, y: float, style: str, *, tip: str) -> None:
        """From the lower end of the y axis."""
        left, right, top = self.x.place(x_low), self.x.place(x_high), self.y.place(y)
        shape = {"x": left, "y": top, "width": max(right - left - 1, 0.5), "height": max(self.y.start - top, 0.0)}
        self._marks.append(element("rect", element("title", tip), class_=f"bar {style}", **shape))

    def spread(self, x: Interval, y: Interval, style: str) -> None:
        """Error bars in both directions, as far as they are known."""
        self._between((x.low, y.value), (x.high, y.value), style)
        self._between((x.value, y.low), (x.value, y.high), style)

    def word(self, x: float, y: float, text: str, style: str) -> None:
        """Above and beside a mark, on the side on which there is room."""
        at = self.x.place(x)
        is_right = at > WIDTH * 0.68
        self._marks.append(
            element(
                "text",
                text,
                x=at + (-8 if is_right else 8),
                y=max(self.y.place(y) - 7, TOP + 8),
                text_anchor="end" if is_right else "start",
                class_=f"word {style}",
            )
        )

    def svg(self, title: str) -> Html:
        frame = [*self._grid(), *self._labels()]
        return element("svg", frame, self._marks, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)

    def _between(self, a: tuple[float, float], b: tuple[float, float], style: str) -> None:
        if all(map(math.isfinite, (*a, *b))) and a != b:
            self.line([a, b], f"error {style}")

    def _grid(self) -> Iterator[Html]:
        for value in self.y.ticks:
            y = self.y.place(value)
            yield element("line", x1=self.x.start, x2=self.x.end, y1=y, y2=y, class_="grid")
            yield element("text", figure(value), x=LEFT - 6, y=y + 4, text_anchor="end", class_="tick")
        for value, name in self._x_names or [(value, figure(value)) for value in self.x.ticks]:
            x = self.x.place(value)
            yield element("line", x1=x, x2=x, y1=self.y.start, y2=self.y.start + 4, class_="axis")
            yield element("text", name, x=x, y=self.y.start + 17, text_anchor="middle", class_="tick")
        yield element("line", x1=self.x.start, x2=self.x.end, y1=self.y.start, y2=self.y.start, class_="axis")

    def _labels(self) -> Iterator[Html]:
        middle = (self.y.start + self.y.end) / 2
        yield element("text", self.x.label, x=(LEFT + WIDTH) / 2, y=HEIGHT - 6, text_anchor="middle", class_="label")
        turned = f"rotate(-90 12 {middle:.0f})"
        yield element("text", self.y.label, x=12, y=middle, text_anchor="middle", transform=turned, class_="label")


def colour(index: int) -> str:
    """The class of the index-th model; they repeat after eight."""
    return f"c{index % NUM_COLOURS}"


def span(values: Sequence[float], *, include: Sequence[float] = (), margin: float = 0.06) -> tuple[float, float]:
    """Least and largest finite value, and a little beyond."""
    finite = [value for value in (*values, *include) if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if low == high:
        return low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)


def round_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten.

    >>> round_ticks(-0.6, 1.2)
    [-0.5, 0.0, 0.5, 1.0]
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + number) * step, 12) + 0.0 for number in range(count)]


def edges(low: float, high: float, *, most: int) -> list[float]:
    """Of at most `most` bins of equal width, at round places, from the last at or below `low` to one beyond `high`."""
    ticks = round_ticks(low, high, most=most) if high > low else [low]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else max(abs(low), 1.0)
    first = math.floor(low / step + 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    # Rounded, so that a value that is an edge belongs to the bin that begins there.
    return [round((first + number) * step, 12) for number in range(count + 1)]


def outline(borders: Sequence[float], heights: Sequence[float]) -> list[tuple[float, float]]:
    """A histogram as one line of steps, from the ground to the ground."""
    points = [(borders[0], 0.0)]
    for (left, right), height in zip(pairwise(borders), heights, strict=True):
        points += [(left, height), (right, height)]
    return [*points, (borders[-1], 0.0)]
