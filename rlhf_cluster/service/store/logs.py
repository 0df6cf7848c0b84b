"""Log lines of a job's processes, each known by its component and the offset of its first byte, so that none is kept
twice however often it is sent."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Row, func, select

from rlhf_cluster.service.store.tables import logs
from rlhf_cluster.service.store.upserts import insert_into
from rlhf_cluster.wire.relay import LogLine


def add(connection: Connection, job_id: str, lines: Sequence[LogLine]) -> None:
    if not lines:
        return
    rows = [
        {
            "job_id": job_id,
            "component": line.component,
            "offset": line.offset,
            "time_s": line.time_s,
            "line": line.line,
        }
        for line in lines
    ]
    connection.execute(insert_into(connection.dialect.name, logs).on_conflict_do_nothing(), rows)


def offsets(connection: Connection, job_id: str) -> dict[str, int]:
    """Of the newest line of each component: where it begins. How long it is, only its file can say: what is here was
    cut, or mended, where it was no text."""
    query = select(logs.c.component, func.max(logs.c.offset)).where(logs.c.job_id == job_id).group_by(logs.c.component)
    return dict(connection.execute(query).tuples().all())


def page(
    connection: Connection,
    job_id: str,
    *,
    component: str | None = None,
    after: int | None = None,
    tail: int | None = None,
    q: str | None = None,
    limit: int,
) -> Sequence[Row]:
    """At most `limit`, oldest first: those that follow line `after`, or the last `tail` of all, or the first ones."""
    query = select(logs).where(logs.c.job_id == job_id)
    if component is not None:
        query = query.where(logs.c.component == component)
    if after is not None:
        query = query.where(logs.c.line_id > after)
    if q:
        query = query.where(logs.c.line.icontains(q, autoescape=True))
    if tail is None:
        return connection.execute(query.order_by(logs.c.line_id).limit(limit)).all()
    return connection.execute(query.order_by(logs.c.line_id.desc()).limit(min(tail, limit))).all()[::-1]
