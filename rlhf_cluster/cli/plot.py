"""Curves as text: dots of Braille characters, two across and four down in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from rlhf_cluster.driver.observers.figures import figure

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Row and column of a dot in its character -> its bit."""
EMPTY = 0x2800


def plot(steps: Sequence[int], values: Sequence[float], *, width: int = 60, height: int = 8) -> str:
    """One curve over its steps, with the least and the greatest value beside it; nothing where there is no point.

    >>> print(plot([0, 1, 2, 3], [0.0, 2.0, 2.0, 3.0], width=4, height=2))
    3 ⠀⡤⠤⠊
    0 ⡜⠀⠀⠀
      0  3
    """
    if not values:
        return ""
    low, high = min(values), max(values)
    rows = [[EMPTY] * width for _ in range(height)]
    dots = [
        (_place(step, steps[0], steps[-1], 2 * width), _place(value, low, high, 4 * height))
        for step, value in zip(steps, values, strict=True)
    ]
    for x, y in _joined(dots):
        row, bit = 4 * height - 1 - y, x % 2
        rows[row // 4][x // 2] |= DOTS[row % 4][bit]
    labels = [figure(high), *[""] * (height - 2), figure(low)] if height > 1 else [figure(high)]
    margin = max(map(len, labels))
    lines = [f"{label:>{margin}} {''.join(map(chr, row))}" for label, row in zip(labels, rows, strict=True)]
    first, last = str(steps[0]), str(steps[-1])
    return "\n".join([*lines, f"{'':>{margin}} {first}{last:>{max(width - len(first), len(last) + 1)}}"])


def _joined(dots: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The dots, and those of the straight lines between them."""
    yield from dots[:1]
    for (x0, y0), (x1, y1) in pairwise(dots):
        num = max(abs(x1 - x0), abs(y1 - y0), 1)
        for part in range(1, num + 1):
            yield x0 + round((x1 - x0) * part / num), y0 + round((y1 - y0) * part / num)


def _place(value: float, low: float, high: float, size: int) -> int:
    """From 0 for `low` to `size - 1` for `high`."""
    return round((value - low) / (high - low) * (size - 1)) if high > low else 0
