"""Wrong secrets: whoever comes with many of them is told to wait.

Secrets have 256 bits and nobody guesses one; this keeps the attempts from filling the audit. Only a secret that was
looked for and is none counts or is refused, so that nobody locks out others who come by the same address, such as that
of a proxy: neither those who were here before, nor a new token, nor a relay after the service was started again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

MAX_FAILURES = 50
PER_S = 60.0
MAX_ADDRESSES = 10_000


@dataclass(slots=True)
class Window:
    begun_s: float
    num: int = 0


class Failures:
    """By address, each in windows of `PER_S`. For any thread; bounded in memory."""

    def __init__(self, *, max_failures: int = MAX_FAILURES) -> None:
        self._max_failures = max_failures
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self._turn = threading.Lock()

    def failed(self, address: str, *, now_s: float) -> float:
        """Notes one more; the seconds after which the address is listened to again, 0 while there were few."""
        with self._turn:
            window = self._windows.get(address)
            if window is None or now_s - window.begun_s >= PER_S:
                window = self._windows[address] = Window(now_s)
                self._windows.move_to_end(address)
            if len(self._windows) > MAX_ADDRESSES:
                self._windows.popitem(last=False)
            if window.num >= self._max_failures:
                return window.begun_s + PER_S - now_s
            window.num += 1
            return 0.0
