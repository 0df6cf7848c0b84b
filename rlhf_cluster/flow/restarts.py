"""How often a lost replica may be replaced, and how long to wait before it is.

The first replacement within a window is immediate, because most losses are single. The next ones wait, each twice as
long as the one before it: what dies at once again must not keep the machine busy with starting it.
"""

from __future__ import annotations

from collections import deque


class RestartBudget:
    """Allows `max_restarts` replacements in any `window_s` seconds."""

    def __init__(self, *, max_restarts: int, window_s: float, backoff_s: float, max_backoff_s: float) -> None:
        if max_restarts < 0 or not 0 <= backoff_s <= max_backoff_s:
            raise ValueError(
                f"max_restarts = {max_restarts} must be at least 0, and backoff_s = {backoff_s} between 0 and "
                f"max_backoff_s = {max_backoff_s}"
            )
        self.max_restarts = max_restarts
        self.window_s = window_s
        self._backoff_s = backoff_s
        self._max_backoff_s = max_backoff_s
        self._spent_s: deque[float] = deque()

    def spend(self, now_s: float, *, jitter: float = 0.0) -> float | None:
        """Seconds to wait before the next replacement, or None when the budget is spent.

        `jitter`, from 0 to 1, lengthens a wait by up to a half, so that replicas lost together do not start together.
        """
        while self._spent_s and self._spent_s[0] <= now_s - self.window_s:
            self._spent_s.popleft()
        num_before = len(self._spent_s)
        if num_before >= self.max_restarts:
            return None
        self._spent_s.append(now_s)
        if num_before == 0:
            return 0.0
        # The exponent is bounded so that a large budget overflows no float.
        wait_s = min(self._max_backoff_s, self._backoff_s * 2.0 ** min(num_before - 1, 60))
        return wait_s * (1 + jitter / 2)
