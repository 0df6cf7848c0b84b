"""Attempts to run a job: when each began, where, and how it ended."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from rlhf_cluster.service import existing
from rlhf_cluster.service.auth import Reader
from rlhf_cluster.service.problems import not_found
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import attempts
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.jobs import Attempt

router = APIRouter(prefix="/jobs/{job_id}/attempts", tags=["attempts"], route_class=SharedRoute)
Number = Annotated[int, Path(ge=1, le=1_000_000)]


@router.get("")
def list_attempts(request: Request, caller: Reader, job_id: str) -> Page[Attempt]:
    """Newest first, and all of them: a job has a bounded number."""
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        rows = attempts.of_job(connection, job_id)
    return Page(items=[Attempt.model_validate(row) for row in reversed(rows)])


@router.get("/{number}")
def show_attempt(request: Request, caller: Reader, job_id: str, number: Number) -> Attempt:
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        found = [row for row in attempts.of_job(connection, job_id) if row.number == number]
    if not found:
        raise not_found("attempt", str(number))
    return Attempt.model_validate(found[0])
