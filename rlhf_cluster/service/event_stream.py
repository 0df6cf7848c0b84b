"""One listener's event stream: from its place in the events to their end, and then whatever comes.

The place is the id of the last event that was sent or did not concern it. It only grows, whether the next events come
from the hub's list or from the database, so none is sent twice, and none is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Receive, Scope, Send

from rlhf_cluster.service import frames
from rlhf_cluster.service.hub import LOGS, PAGE, VIEW, Hub
from rlhf_cluster.service.store import events
from rlhf_cluster.service.store.database import Database

TOPICS = ("jobs", "metrics", "workers", "logs")
NOTED_WITH = {VIEW: "workers", LOGS: "logs"}
"""What is no event -> the topic with which it is told."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    topics: frozenset[str] = frozenset(TOPICS)
    job_id: str | None = None
    """None: of every job."""

    def has(self, topic: str, job_id: str) -> bool:
        return topic in self.topics and self.job_id in (None, job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """The next frames, the place after them, and whether more is there already."""

    place: int
    frames: list[bytes] = field(default_factory=list)
    is_more: bool = False


class EventStream(StreamingResponse):
    media_type = "text/event-stream"

    def __init__(self, content: AsyncGenerator[bytes], *, leave: Callable[[], None]) -> None:
        super().__init__(content, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()  # however it ended: a listener that is gone no longer counts


async def stream(
    hub: Hub,
    db: Database,
    wanted: Wanted,
    *,
    after: int | None,
    may_stay: Callable[[], bool],
    keep_alive_s: float,
) -> AsyncGenerator[bytes]:
    """Frames until the hub closes or `may_stay`, asked now and then in a thread, says no.

    consumes: the hub's list, or the database where that does not reach back; produces: frames; waits for:
    `hub.changed`; unblocked by: news, the time of the next sign of life, the hub's end.
    """
    try:
        tick, alive_s = hub.tick, time.monotonic()
        news = await asyncio.to_thread(_first, db, wanted, after)
        yield b"".join((frames.opening(news.place if after is None else None), *news.frames))
        while not hub.is_closed:
            changed = hub.changed  # before looking: what comes from now on sets it
            news = await _next(hub, db, wanted, news.place)
            notes, tick = _notes(hub, wanted, tick), hub.tick
            if chunk := b"".join((*news.frames, *notes)):
                yield chunk
            if time.monotonic() - alive_s >= keep_alive_s:
                if not await asyncio.to_thread(may_stay):
                    return
                alive_s = time.monotonic()
                yield frames.keep_alive(news.place)
            if not news.is_more:
                await _set_before(changed, alive_s + keep_alive_s)
                await asyncio.sleep(random.random() * hub.spread_s)
    except SQLAlchemyError as error:
        log.warning("an event stream ends, because the database cannot be read: %s", error)


def _first(db: Database, wanted: Wanted, after: int | None) -> News:
    if after is not None:
        return _replay(db, wanted, after)
    with db.reading() as connection:
        return News(place=events.newest_id(connection))


async def _next(hub: Hub, db: Database, wanted: Wanted, place: int) -> News:
    found = hub.after(place)
    if found is None:
        return await asyncio.to_thread(_replay, db, wanted, place)
    chosen = [event.frame for event in found if wanted.has(event.topic, event.job_id)]
    return News(place=found[-1].event_id if found else place, frames=chosen)


def _replay(db: Database, wanted: Wanted, place: int) -> News:
    """From the database; where events after `place` were removed, or a client comes with a place of another
    database, it is told to begin anew."""
    with db.reading() as connection:
        newest, oldest = events.newest_id(connection), events.oldest_id(connection)
        if place > newest or place < oldest - 1:
            return News(place=newest, frames=[frames.resync(newest)])
        rows = events.after(connection, place, job_id=wanted.job_id, topics=sorted(wanted.topics), limit=PAGE)
    last = rows[-1].event_id if rows else place
    found = [frames.framed(row).frame for row in rows]
    if len(rows) == PAGE:
        return News(place=last, frames=found, is_more=True)
    return News(place=max(last, newest), frames=found)


def _notes(hub: Hub, wanted: Wanted, tick: int) -> list[bytes]:
    marks = hub.marks_after(tick)
    return [frames.note(topic, job_id) for topic, job_id in marks if wanted.has(NOTED_WITH[topic], job_id)]


async def _set_before(changed: asyncio.Event, deadline_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
            await changed.wait()
