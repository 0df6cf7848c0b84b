"""What an observer is, and the one that fans events out to all others.

Observers see everything the driver does and decide nothing. They are called on the driver's event loop: they return
at once, and hand slow work (drawing) to a thread of their own. A full disk must not end a job, so an observer that
raises `OSError` is switched off with one warning; any other exception is a bug and travels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from rlhf_cluster.records.events import Event, Notice


class Observer(Protocol):
    def on_event(self, event: Event) -> None:
        """Take note of `event` and return at once. Events come in order, from one thread."""
        ...

    def close(self) -> None:
        """Write out what is left. No event follows. Closing twice is fine."""
        ...


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._active = list(observers)
        self._last_event: Event | None = None

    def add(self, observer: Observer) -> None:
        self._active.append(observer)

    def on_event(self, event: Event) -> None:
        self._last_event = event
        for observer in tuple(self._active):
            try:
                observer.on_event(event)
            except OSError as error:
                self._disable(observer, because=error)

    def close(self) -> None:
        """Close every observer, in reverse order of opening; one that cannot write does not keep the others open."""
        while self._active:
            observer = self._active.pop()
            try:
                observer.close()
            except OSError as error:
                self._warn(observer, because=error)

    def __enter__(self) -> Observers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _disable(self, observer: Observer, *, because: OSError) -> None:
        if observer in self._active:  # a warning about another one may have disabled it meanwhile
            self._active.remove(observer)
            self._warn(observer, because=because)

    def _warn(self, observer: Observer, *, because: OSError) -> None:
        last = self._last_event
        self.on_event(
            Notice(
                time_s=last.time_s if last else 0.0,
                step=last.step if last else 0,
                level="warning",
                text=f"observer {type(observer).__name__} is switched off for the rest of the job: {because}",
            )
        )
