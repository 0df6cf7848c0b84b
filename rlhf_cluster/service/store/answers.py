"""Answers to requests with an `Idempotency-Key`: the same request again gets the same answer, and does nothing.

`begin` belongs into the transaction of the deed, and `finish` too: then a process that dies between them has neither
done it nor noted it, and whoever asks again begins afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, tuple_, update

from rlhf_cluster.service.store.tables import answers
from rlhf_cluster.service.store.upserts import insert_into


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nobody has asked; the caller does it now, and calls `finish`."""


@dataclass(frozen=True, slots=True)
class Saved:
    """It was done, with this answer."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class InFlight:
    """Somebody does it at this moment."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key was given before, with another request."""


def begin(
    connection: Connection, *, token_id: str, key: str, request_sha256: str, now_s: float
) -> Fresh | Saved | InFlight | Mismatch:
    values = {"token_id": token_id, "key": key, "request_sha256": request_sha256, "created_s": now_s}
    # RETURNING tells whether a row was made; PostgreSQL's driver does not count the rows of such an INSERT.
    statement = insert_into(connection.dialect.name, answers).on_conflict_do_nothing().returning(answers.c.key)
    if connection.execute(statement, values).one_or_none() is not None:
        return Fresh()
    row = connection.execute(select(answers).where(answers.c.token_id == token_id, answers.c.key == key)).one()
    if row.request_sha256 != request_sha256:
        return Mismatch()
    return InFlight() if row.status is None else Saved(row.status, row.headers, row.body)


def finish(
    connection: Connection, *, token_id: str, key: str, status: int, headers: Mapping[str, str], body: str
) -> None:
    connection.execute(
        update(answers)
        .where(answers.c.token_id == token_id, answers.c.key == key)
        .values(status=status, headers=dict(headers), body=body)
    )


def trim(connection: Connection, *, before_s: float, limit: int) -> int:
    """Remove at most `limit` of those begun before; how many went."""
    old = select(answers.c.token_id, answers.c.key).where(answers.c.created_s < before_s).limit(limit)
    return connection.execute(delete(answers).where(tuple_(answers.c.token_id, answers.c.key).in_(old))).rowcount
