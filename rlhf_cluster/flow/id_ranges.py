"""A set of whole numbers as ranges: what a million consecutive request ids need is two numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class IdRanges:
    """Immutable; `ranges` are (first, last) with both ends in it, ascending, with a hole between any two.

    >>> IdRanges.of([7, 1, 2, 3]).ranges
    ((1, 3), (7, 7))
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        joined: list[tuple[int, int]] = []
        for first, last in sorted(ranges):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        self.ranges = tuple(joined)
        self._firsts = [first for first, _ in joined]

    @classmethod
    def of(cls, ids: Iterable[int]) -> IdRanges:
        return cls((each, each) for each in ids)

    def __contains__(self, each: int) -> bool:
        place = bisect_right(self._firsts, each) - 1
        return place >= 0 and each <= self.ranges[place][1]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __or__(self, other: IdRanges) -> IdRanges:
        return IdRanges((*self.ranges, *other.ranges))

    def holes(self, *, end: int) -> tuple[tuple[int, int], ...]:
        """The ranges of 0..end-1 that are not in the set."""
        edges = [-1, *(edge for pair in self.ranges for edge in pair), end]
        between = ((last + 1, first - 1) for last, first in zip(edges[::2], edges[1::2], strict=True))
        return tuple((first, last) for first, last in between if first <= last)

    def words(self) -> str:
        """Such as `1-3, 7`, the first few of them."""
        shown = [str(first) if first == last else f"{first}-{last}" for first, last in self.ranges[:5]]
        return ", ".join(shown) + (", ..." if len(self.ranges) > len(shown) else "")
