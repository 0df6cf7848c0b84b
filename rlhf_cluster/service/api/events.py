"""What happens: a job's timeline as pages, and everybody's as one stream that goes on where it was broken off."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from rlhf_cluster.service import existing
from rlhf_cluster.service.auth import EVERYBODY, Caller, Reader
from rlhf_cluster.service.event_stream import TOPICS, EventStream, Wanted, stream
from rlhf_cluster.service.hub import TooManyStreams
from rlhf_cluster.service.paging import Cursor, Limit, cursor_checked
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import events, tokens
from rlhf_cluster.service.store.cursors import MAX_INTEGER
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.figures import Event

router = APIRouter(tags=["events"], route_class=SharedRoute)

COME_AGAIN_S = 10
_TOPIC = f"(?:{'|'.join(TOPICS)})"

EventId = Annotated[int | None, Query(ge=0, le=MAX_INTEGER, description="Only events after this one.")]
LastEventId = Annotated[
    int | None, Header(ge=0, le=MAX_INTEGER, description="As browsers send it after a break; goes before `after`.")
]
Topics = Annotated[str | None, Query(pattern=rf"^{_TOPIC}(?:,{_TOPIC})*$", description=f"Some of {','.join(TOPICS)}.")]


@router.get("/jobs/{job_id}/events")
def list_events(
    request: Request,
    caller: Reader,
    job_id: str,
    kind: Annotated[
        list[Annotated[str, Field(max_length=32)]] | None, Query(max_length=50, description="One of these.")
    ] = None,
    level: Annotated[
        Literal["info", "warning", "error"] | None, Query(description="Of this level and worse ones.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Event]:
    """Newest first."""
    with request.app.state.service.db.reading() as connection, cursor_checked():
        existing.job(connection, job_id)
        rows, next_cursor = events.page(connection, job_id=job_id, limit=limit, cursor=cursor, kinds=kind, level=level)
    return Page(items=[Event.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get("/events/stream", response_class=EventStream, status_code=200)
async def stream_events(
    request: Request,
    caller: Reader,
    topics: Topics = None,
    job_id: Annotated[str | None, Query(max_length=40, description="Of this job alone.")] = None,
    after: EventId = None,
    last_event_id: LastEventId = None,
) -> EventStream:
    """Server-sent events: `event` is the topic, `id` the event's, `data` an `Event`. Without `after` it begins now.

    Messages without an id tell of what is no event, with `{"job_id": ...}`: `view` when what a job's driver sees has
    changed (with the topic `workers`), `logs` when there are new lines. `resync`: what was asked for has been
    removed; read everything anew, the stream goes on with what comes.
    """
    service = request.app.state.service
    if job_id is not None:
        await run_in_threadpool(_check_job, service.db, job_id)
    wanted = Wanted(topics=frozenset((topics or ",".join(TOPICS)).split(",")), job_id=job_id)
    place = last_event_id if last_event_id is not None else after
    try:
        service.hub.enter(caller.token_id)
    except TooManyStreams as error:
        detail = f"{caller.name!r} has {service.settings.max_streams} event streams open, and may have no more: end one"
        raise ApiProblem(503, "too_many_streams", detail, headers={"Retry-After": str(COME_AGAIN_S)}) from error
    content = stream(
        service.hub,
        service.db,
        wanted,
        after=place,
        may_stay=lambda: _may_stay(service.db, caller),
        keep_alive_s=service.settings.keep_alive_s,
    )
    return EventStream(content, leave=lambda: service.hub.leave(caller.token_id))


def _check_job(db: Database, job_id: str) -> None:
    with db.reading() as connection:
        existing.job(connection, job_id)


def _may_stay(db: Database, caller: Caller) -> bool:
    """Whether the token with which a stream was opened is still good for one."""
    if caller == EVERYBODY:
        return True
    with db.reading() as connection:
        row = tokens.get(connection, caller.token_id)
    return row is not None and row.revoked_s is None and (row.expires_s is None or row.expires_s > time.time())
