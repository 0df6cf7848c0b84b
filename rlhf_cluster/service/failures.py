"""Wrong secrets: whoever comes with many of them is not listened to for a while.

Secrets have 256 bits and nobody guesses one; this keeps the attempts from costing much. What has been right before is
still listened to, so that nobody locks out others who come by the same address, such as that of a proxy.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

MAX_FAILURES = 50
PER_S = 60.0
MAX_ADDRESSES = 10_000
MAX_GOOD = 10_000


@dataclass(slots=True)
class Window:
    begun_s: float
    num: int = 0


class Failures:
    """By address, each in windows of `PER_S`. For any thread; bounded in memory."""

    def __init__(self, *, max_failures: int = MAX_FAILURES) -> None:
        self._max_failures = max_failures
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self._good: OrderedDict[str, None] = OrderedDict()
        self._turn = threading.Lock()

    def wait_s(self, address: str, hashed: str, *, now_s: float) -> float:
        """After how many seconds the secret with this hash will be looked at; 0 for at once."""
        with self._turn:
            window = self._windows.get(address)
            if window is None or hashed in self._good or window.num < self._max_failures:
                return 0.0
            return max(0.0, window.begun_s + PER_S - now_s)

    def failed(self, address: str, *, now_s: float) -> None:
        with self._turn:
            window = self._windows.get(address)
            if window is None or now_s - window.begun_s >= PER_S:
                window = self._windows[address] = Window(now_s)
                self._windows.move_to_end(address)
            window.num += 1
            if len(self._windows) > MAX_ADDRESSES:
                self._windows.popitem(last=False)

    def succeeded(self, hashed: str) -> None:
        with self._turn:
            self._good[hashed] = None
            self._good.move_to_end(hashed)
            if len(self._good) > MAX_GOOD:
                self._good.popitem(last=False)
