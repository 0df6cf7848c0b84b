"""Commands to a running job: kept until its driver has answered, or nobody waits for them any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, tuple_, update

from rlhf_cluster.service.ids import new_id
from rlhf_cluster.service.store import cursors
from rlhf_cluster.service.store.tables import commands

OPEN = ("pending", "delivered")


def add(
    connection: Connection,
    job_id: str,
    body: Mapping[str, Any],
    *,
    created_by: str,
    now_s: float,
    expires_s: float | None = None,
) -> Row:
    """`expires_s` is the Unix time after which it shall not be obeyed."""
    command_id = new_id("cmd")
    connection.execute(
        insert(commands).values(
            command_id=command_id,
            job_id=job_id,
            body=dict(body),
            state="pending",
            created_by=created_by,
            created_s=now_s,
            expires_s=expires_s,
        )
    )
    return connection.execute(select(commands).where(commands.c.command_id == command_id)).one()


def get(connection: Connection, command_id: str) -> Row | None:
    return connection.execute(select(commands).where(commands.c.command_id == command_id)).one_or_none()


def of_job(
    connection: Connection, job_id: str, *, limit: int, cursor: str | None = None
) -> tuple[Sequence[Row], str | None]:
    """Newest first, and the cursor of those that follow. Raises `ValueError` for a cursor that is none."""
    query = select(commands).where(commands.c.job_id == job_id)
    if cursor is not None:
        last = tuple_(*cursors.decode(cursor, float, str))
        query = query.where(tuple_(commands.c.created_s, commands.c.command_id) < last)
    rows = connection.execute(
        query.order_by(commands.c.created_s.desc(), commands.c.command_id.desc()).limit(limit + 1)
    ).all()
    return cursors.page(rows, limit, "created_s", "command_id")


def waiting(connection: Connection, job_id: str, *, now_s: float) -> Sequence[Row]:
    """Those without an answer, oldest first, also when they were delivered: a driver may have died with them. Those
    whose time is over are marked so and left out; this writes only where there are such."""
    query = select(commands).where(commands.c.job_id == job_id, commands.c.state.in_(OPEN))
    rows = connection.execute(query.order_by(commands.c.created_s, commands.c.command_id)).all()
    late = [row.command_id for row in rows if row.expires_s is not None and row.expires_s <= now_s]
    if late:
        connection.execute(update(commands).where(commands.c.command_id.in_(late)).values(state="expired"))
    return [row for row in rows if row.command_id not in late]


def deliver(connection: Connection, command_ids: Sequence[str]) -> None:
    connection.execute(
        update(commands)
        .where(commands.c.command_id.in_(command_ids), commands.c.state == "pending")
        .values(state="delivered")
    )


def answer(connection: Connection, command_id: str, *, ok: bool, text: str, now_s: float) -> None:
    """The first answer counts, also where it comes after the time was over: the driver has obeyed by then."""
    connection.execute(
        update(commands)
        .where(commands.c.command_id == command_id, commands.c.answered_s.is_(None))
        .values(state="done" if ok else "refused", answer=text, answered_s=now_s)
    )
