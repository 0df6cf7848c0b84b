"""What happened, numbered in the order in which it can be read: a reader who has seen an id has seen all before it.

That holds because one transaction writes at a time (`database.py`): none with a lower id is still under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from rlhf_cluster.service.store import cursors
from rlhf_cluster.service.store.tables import events

LEVELS = ("info", "warning", "error")


def add(
    connection: Connection,
    *,
    topic: str,
    job_id: str,
    time_s: float,
    step: int,
    kind: str,
    text: str = "",
    level: str = "info",
    body: Mapping[str, Any],
) -> int:
    """Its id, which is greater than all before it."""
    values = {"topic": topic, "job_id": job_id, "time_s": time_s, "step": step, "kind": kind, "text": text}
    statement = insert(events).values(**values, level=level, body=dict(body)).returning(events.c.event_id)
    return connection.execute(statement).scalar_one()


def after(
    connection: Connection,
    event_id: int,
    *,
    job_id: str | None = None,
    topics: Sequence[str] | None = None,
    limit: int = 500,
) -> Sequence[Row]:
    """Those with a greater id, oldest first."""
    query = select(events).where(events.c.event_id > event_id)
    if job_id is not None:
        query = query.where(events.c.job_id == job_id)
    if topics is not None:
        query = query.where(events.c.topic.in_(topics))
    return connection.execute(query.order_by(events.c.event_id).limit(limit)).all()


def page(
    connection: Connection,
    *,
    job_id: str,
    limit: int,
    cursor: str | None = None,
    kinds: Sequence[str] | None = None,
    level: str | None = None,
) -> tuple[Sequence[Row], str | None]:
    """Of `level` and worse, newest first, and the cursor of those that follow. Raises `ValueError` for a cursor that is
    none."""
    query = select(events).where(events.c.job_id == job_id)
    if cursor is not None:
        query = query.where(events.c.event_id < cursors.decode(cursor, int)[0])
    if kinds is not None:
        query = query.where(events.c.kind.in_(kinds))
    if level is not None:
        query = query.where(events.c.level.in_(LEVELS[LEVELS.index(level) :] if level in LEVELS else (level,)))
    rows = connection.execute(query.order_by(events.c.event_id.desc()).limit(limit + 1)).all()
    return cursors.page(rows, limit, "event_id")


def newest_id(connection: Connection) -> int:
    """0 where there is none."""
    return connection.execute(select(func.max(events.c.event_id))).scalar_one() or 0


def oldest_id(connection: Connection) -> int:
    """0 where there is none. Who has seen less than the one before it has missed what was trimmed."""
    return connection.execute(select(func.min(events.c.event_id))).scalar_one() or 0


def trim(connection: Connection, *, keep: int, limit: int) -> int:
    """Remove all but the newest `keep`, the oldest first and at most `limit` at once; how many went."""
    cut = select(events.c.event_id).order_by(events.c.event_id.desc()).offset(keep).limit(1).scalar_subquery()
    old = select(events.c.event_id).where(events.c.event_id <= cut).order_by(events.c.event_id).limit(limit)
    return connection.execute(delete(events).where(events.c.event_id.in_(old))).rowcount
