"""Which published locations a transport still keeps: those of the newest version and of the one before it."""

from __future__ import annotations

from typing import Any

KEPT_VERSIONS = 2


class RecentVersions:
    """One version may lie at several locations: whole, and as a delta."""

    def __init__(self) -> None:
        self._published: dict[int, list[Any]] = {}

    def add(self, location: Any, *, version: int) -> list[Any]:
        """Note a location, in the order of publishing; returns those that have to go.

        Versions may start again lower, after a resume: what counts is which were published last.
        """
        known = self._published.pop(version, [])
        self._published[version] = [*(other for other in known if other != location), location]
        oldest = list(self._published)[:-KEPT_VERSIONS]
        return [expired for old in oldest for expired in self._published.pop(old)]

    def clear(self) -> list[Any]:
        """Forget everything; returns all that was kept."""
        published, self._published = self._published, {}
        return [location for locations in published.values() for location in locations]
