"""Who asked for which change, and whether it was made; only for an admin."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rlhf_cluster.service.auth import Admin
from rlhf_cluster.service.paging import Cursor, Limit, cursor_checked
from rlhf_cluster.service.store import audit
from rlhf_cluster.wire.access import AuditEntry
from rlhf_cluster.wire.base import Page

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("")
def list_changes(request: Request, caller: Admin, limit: Limit = 50, cursor: Cursor = None) -> Page[AuditEntry]:
    """Newest first. Commands of relays are not among them."""
    with request.app.state.service.db.reading() as connection, cursor_checked():
        rows, next_cursor = audit.page(connection, limit=limit, cursor=cursor)
    return Page(items=[AuditEntry.model_validate(row) for row in rows], next_cursor=next_cursor)
