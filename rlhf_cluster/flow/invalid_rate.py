"""Counts how often each reward fails over a sliding window, and says when a job must not go on like that. Sans IO."""

from __future__ import annotations

import math
from collections import Counter, deque

from rlhf_cluster.errors import TooManyInvalid
from rlhf_cluster.records import Invalid, RolloutGroup

SOURCE_PREFIX = "reward:"


class InvalidRate:
    """The last `window` results of every reward, one a completion.

    The bound is passed when more than `max_rate * window` of them are failures. The full window stands in the formula
    from the first completion on, so that one early failure among few results is no reason to stop.
    """

    def __init__(self, *, max_rate: float, window: int) -> None:
        self._max_rate = max_rate
        self._window = window
        # The hair's breadth undoes binary rounding: 0.29 of 100 allows 29.
        self._num_allowed = math.floor(max_rate * window + 1e-9)
        self._results: dict[str, deque[Invalid | None]] = {}

    def observe(self, group: RolloutGroup) -> None:
        """Count a scored group, its invalid completions still in it."""
        failures = {(failure.source, failure.completion): failure for failure in group.invalid}
        for name in group.breakdown:
            results = self._results.setdefault(name, deque(maxlen=self._window))
            results.extend(failures.get((SOURCE_PREFIX + name, i)) for i in range(group.num_completions))

    def rates(self) -> dict[str, float]:
        """By reward, the share of failures among the results seen, in [0, 1]."""
        return {name: len(_failures(results)) / len(results) for name, results in self._results.items() if results}

    def check(self) -> None:
        """Raise `TooManyInvalid` for the first reward past the bound: which, how often, and how it mostly fails."""
        for name, results in self._results.items():
            failures = _failures(results)
            if len(failures) > self._num_allowed:
                raise TooManyInvalid(self._message(name, failures, num_results=len(results)))

    def _message(self, name: str, failures: list[Invalid], *, num_results: int) -> str:
        ((kind, message), count) = Counter((failure.kind, failure.message) for failure in failures).most_common(1)[0]
        return (
            f"reward {name!r} failed for {len(failures)} of the last {num_results} completions "
            f"({len(failures) / num_results:.1%}); max_invalid_rate = {self._max_rate:g} allows "
            f"{self._num_allowed} of {self._window}. Most often ({count} times) {kind}: {message}. "
            "Mend the reward, or raise max_invalid_rate"
        )


def _failures(results: deque[Invalid | None]) -> list[Invalid]:
    return [result for result in results if result is not None]
