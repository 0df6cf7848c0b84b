"""What is new, for everybody who listens: one look at the database for all of them, while there is anybody.

The newest events stay here in memory, encoded, in one list for all. A listener who is further behind than the list
reaches goes on from the database, so nobody's slowness costs memory or delays others, and nobody misses an event.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import takewhile

from sqlalchemy.exc import SQLAlchemyError

from rlhf_cluster.service.frames import Framed, framed
from rlhf_cluster.service.store import changes, events
from rlhf_cluster.service.store.database import Database

POLL_S = 0.5
QUICK_POLL_S = 0.1
"""Where asking whether anything has changed costs next to nothing (`Database.quick_stamp`)."""
KEEP = 1000
"""Events in memory. Listeners who are further behind read the database themselves."""
PAGE = 500
LOOKED_BACK = 10_000
"""Log lines that may be new where it is not known which; telling of one that is not costs a question."""
SPREAD_S, MAX_SPREAD_S = 0.01, 0.5
"""A crowd is told over so much time for each of it: every one of them asks for something when it hears of news, and
all at once would wait for each other."""
VIEW, LOGS = "view", "logs"

log = logging.getLogger(__name__)

Mark = tuple[str, str]
"""(topic, job id) of what changed without an event."""


class TooManyStreams(Exception):
    """Somebody has as many streams open as one may have."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Up to where the database was read."""

    event_id: int
    line_id: int
    views: dict[str, float]


class Hub:
    """All methods are for the event loop; only `look` runs in a thread."""

    def __init__(self, db: Database, *, max_streams: int, poll_s: float = POLL_S, keep: int = KEEP) -> None:
        self.changed = asyncio.Event()
        """Set, and replaced, whenever there is something new or the hub closes."""
        self.is_closed = False
        self.tick = 0
        self._db = db
        self._max_streams = max_streams
        self._poll_s = poll_s
        self._keep = keep
        self._seen: Seen | None = None
        self._read: Hashable | None = None  # the stamp of the database as it was seen
        self._ring: deque[Framed] = deque()
        self._ring_after = 0  # the ring has every event with a greater id that was seen
        self._marks: dict[Mark, int] = {}
        self._listeners: Counter[str] = Counter()
        self._somebody = asyncio.Event()

    @property
    def num_listeners(self) -> int:
        return self._listeners.total()

    @property
    def spread_s(self) -> float:
        """Over which listeners shall spread out before they go on; 0 for one alone."""
        return min(MAX_SPREAD_S, SPREAD_S * (self.num_listeners - 1))

    def enter(self, who: str) -> None:
        """Raises `TooManyStreams`. Whoever enters must leave."""
        if self._listeners[who] >= self._max_streams:
            raise TooManyStreams(who)
        self._listeners[who] += 1
        self._somebody.set()

    def leave(self, who: str) -> None:
        self._listeners[who] -= 1
        if self._listeners[who] <= 0:
            del self._listeners[who]

    def after(self, place: int) -> list[Framed] | None:
        """The events after that one, as far as they were seen; None where only the database has them all."""
        if self._seen is None or place < self._ring_after:
            return None
        return list(takewhile(lambda event: event.event_id > place, reversed(self._ring)))[::-1]

    def marks_after(self, tick: int) -> list[Mark]:
        """What changed since then, each once, however often it did."""
        return [mark for mark, at in self._marks.items() if at > tick]

    async def run(self) -> None:
        """Look at the database while there is anybody who listens, until the hub is closed.

        consumes: events, views and log lines in the database; produces: the list of events, the marks, `changed`;
        waits for: the first listener, then time; unblocked by: `close`, cancellation. A database that cannot be read
        is asked again: every listener goes on from its own place when it answers.
        """
        while not self.is_closed:
            if not self._listeners:
                self._forget()
                await self._somebody.wait()
                continue
            stamp = self._db.quick_stamp()  # before looking: what is committed from now on changes it
            is_more = False
            if stamp is None or stamp != self._read:
                is_more = await self._look_again(stamp)
            pause_s = self._poll_s if stamp is None else min(self._poll_s, QUICK_POLL_S)
            await asyncio.sleep(0 if is_more else pause_s)

    async def _look_again(self, stamp: Hashable | None) -> bool:
        """Whether there is more than one look takes."""
        try:
            seen, news, marks = await asyncio.to_thread(look, self._db, self._seen)
        except SQLAlchemyError as error:
            log.warning("events cannot be read, and are asked for again: %s", error)
            return False
        self._take(seen, news, marks)
        is_more = len(news) == PAGE
        self._read = None if is_more else stamp
        return is_more

    def close(self) -> None:
        """Every stream ends; called before the server waits for requests that are under way."""
        self.is_closed = True
        self._somebody.set()
        self._tell()

    def _take(self, seen: Seen, news: list[Framed], marks: set[Mark]) -> None:
        if is_first := self._seen is None:
            self._ring_after = seen.event_id
        self._seen = seen
        self._ring.extend(news)
        while len(self._ring) > self._keep:
            self._ring_after = self._ring.popleft().event_id
        if marks or news or is_first:
            self.tick += 1
            self._marks |= dict.fromkeys(marks, self.tick)
            self._tell()

    def _tell(self) -> None:
        before, self.changed = self.changed, asyncio.Event()
        before.set()

    def _forget(self) -> None:
        self._somebody.clear()
        self._seen = self._read = None
        self._ring.clear()
        self._marks.clear()


def look(db: Database, seen: Seen | None) -> tuple[Seen, list[Framed], set[Mark]]:
    """What came since `seen`; at first only where we are."""
    with db.reading() as connection:
        views = changes.views(connection)
        if seen is None:
            return Seen(events.newest_id(connection), changes.newest_line(connection), views), [], set()
        newest_line = changes.newest_line(connection)
        # A job that was removed may have taken the newest lines with it, and SQLite gives their ids again.
        after = seen.line_id if newest_line >= seen.line_id else newest_line - LOOKED_BACK
        lines = changes.lines_after(connection, after)
        news = [framed(row) for row in events.after(connection, seen.event_id, limit=PAGE)]
    marks = {(VIEW, job_id) for job_id, view_s in views.items() if seen.views.get(job_id) != view_s}
    marks |= {(LOGS, job_id) for job_id in lines}
    event_id = news[-1].event_id if news else seen.event_id
    return Seen(event_id, newest_line, views), news, marks
