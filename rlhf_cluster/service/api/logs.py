"""What the processes of a job write: their last lines, and from there on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from rlhf_cluster.service import existing
from rlhf_cluster.service.auth import Reader
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import logs
from rlhf_cluster.service.store.cursors import MAX_INTEGER
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.figures import LogLine

router = APIRouter(prefix="/jobs/{job_id}/logs", tags=["logs"], route_class=SharedRoute)

MAX_LINES = 1000


@router.get("")
def list_lines(
    request: Request,
    caller: Reader,
    job_id: str,
    component: Annotated[str | None, Query(max_length=64, description="A worker's id, or `driver`.")] = None,
    after: Annotated[int | None, Query(ge=0, le=MAX_INTEGER, description="Lines that follow this `line_id`.")] = None,
    tail: Annotated[int | None, Query(ge=1, le=MAX_LINES, description="The last so many.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Part of a line.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LINES)] = 200,
) -> Page[LogLine]:
    """Oldest first, and without cursor: what follows is asked for with `after` the last line's id."""
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        rows = logs.page(connection, job_id, component=component, after=after, tail=tail, q=q, limit=limit)
    return Page(items=[LogLine.model_validate(row) for row in rows])


@router.get("/components")
def list_components(request: Request, caller: Reader, job_id: str) -> Page[str]:
    """Those with any line, in the order of the alphabet."""
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        return Page(items=sorted(logs.offsets(connection, job_id)))
