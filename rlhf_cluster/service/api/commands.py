"""Commands to a job: whether its driver has them, and what it answered."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rlhf_cluster.service import existing
from rlhf_cluster.service.auth import Reader
from rlhf_cluster.service.paging import Cursor, Limit, cursor_checked
from rlhf_cluster.service.problems import not_found
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import commands
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.jobs import Command

router = APIRouter(prefix="/jobs/{job_id}/commands", tags=["commands"], route_class=SharedRoute)


@router.get("")
def list_commands(
    request: Request, caller: Reader, job_id: str, limit: Limit = 50, cursor: Cursor = None
) -> Page[Command]:
    """Newest first."""
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        with cursor_checked():
            rows, next_cursor = commands.of_job(connection, job_id, limit=limit, cursor=cursor)
    return Page(items=[Command.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get("/{command_id}")
def show_command(request: Request, caller: Reader, job_id: str, command_id: str) -> Command:
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        row = commands.get(connection, command_id)
    if row is None or row.job_id != job_id:
        raise not_found("command", command_id)
    return Command.model_validate(row)
