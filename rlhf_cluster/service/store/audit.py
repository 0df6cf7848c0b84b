"""Who changed what: one row a request that was not only reading. `web.py` writes them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Row, delete, select

from rlhf_cluster.service.store import cursors
from rlhf_cluster.service.store.tables import audit


def page(connection: Connection, *, limit: int, cursor: str | None = None) -> tuple[Sequence[Row], str | None]:
    """Newest first, and the cursor of those that follow. Raises `ValueError` for a cursor that is none."""
    query = select(audit).order_by(audit.c.audit_id.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(audit.c.audit_id < cursors.decode(cursor, int)[0])
    return cursors.page(connection.execute(query).all(), limit, "audit_id")


def trim(connection: Connection, *, before_s: float, limit: int) -> int:
    """Remove at most `limit` of those before; how many went."""
    old = select(audit.c.audit_id).where(audit.c.time_s < before_s).limit(limit)
    return connection.execute(delete(audit).where(audit.c.audit_id.in_(old))).rowcount
