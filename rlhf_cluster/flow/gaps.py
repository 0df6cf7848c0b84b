"""How long workers usually are without a new token: a small histogram that slowly forgets."""

from __future__ import annotations

import math
from collections import Counter

SHORTEST_S = 0.01
"""Shorter gaps are all alike."""
GROWTH = 1.25
"""Of one bin to the next: the percentile is told at most this factor too high, never too low."""
NUM_KEPT = 2_000
"""Past this many gaps all counts are halved, so that the last few thousand decide."""


class GapHistogram:
    """Gaps in seconds, in bins of equal ratio."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._num_gaps = 0
        self._p99_s: float | None = 0.0

    def add(self, gap_s: float) -> None:
        self._counts[_bin(gap_s)] += 1
        self._num_gaps += 1
        self._p99_s = None
        if self._num_gaps > NUM_KEPT:
            self._counts = Counter({bin: number // 2 for bin, number in self._counts.items() if number > 1})
            self._num_gaps = self._counts.total()

    @property
    def p99_s(self) -> float:
        """The gap that 99% of those seen do not pass; the longest while they are fewer than 100, 0 without any."""
        if self._p99_s is None:
            self._p99_s = self._find_p99_s()
        return self._p99_s

    def _find_p99_s(self) -> float:
        num_above = self._num_gaps - math.ceil(0.99 * self._num_gaps)
        for bin in sorted(self._counts, reverse=True):
            num_above -= self._counts[bin]
            if num_above < 0:
                return SHORTEST_S * GROWTH**bin if bin else 0.0
        return 0.0


def _bin(gap_s: float) -> int:
    return max(0, math.ceil(math.log(gap_s / SHORTEST_S) / math.log(GROWTH))) if gap_s > SHORTEST_S else 0
