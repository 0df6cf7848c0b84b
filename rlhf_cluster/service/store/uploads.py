"""Uploaded bundles by the SHA-256 of their content; the bytes are files beside the database."""

from __future__ import annotations

from sqlalchemy import Connection, Row, select

from rlhf_cluster.service.store.tables import uploads
from rlhf_cluster.service.store.upserts import insert_into


def add(connection: Connection, sha256: str, *, num_bytes: int, created_by: str, now_s: float) -> Row:
    """The same content again is the same upload."""
    values = {"sha256": sha256, "num_bytes": num_bytes, "created_by": created_by, "created_s": now_s}
    connection.execute(insert_into(connection.dialect.name, uploads).values(values).on_conflict_do_nothing())
    return connection.execute(select(uploads).where(uploads.c.sha256 == sha256)).one()


def get(connection: Connection, sha256: str) -> Row | None:
    return connection.execute(select(uploads).where(uploads.c.sha256 == sha256)).one_or_none()
