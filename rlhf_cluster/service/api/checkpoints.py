"""The checkpoints that a job has written."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rlhf_cluster.service import existing
from rlhf_cluster.service.auth import Reader
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import checkpoints
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.figures import Checkpoint

router = APIRouter(prefix="/jobs/{job_id}/checkpoints", tags=["checkpoints"], route_class=SharedRoute)


@router.get("")
def list_checkpoints(request: Request, caller: Reader, job_id: str) -> Page[Checkpoint]:
    """All, newest first. A job keeps only its last ones on disk."""
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        return Page(items=[Checkpoint.model_validate(row) for row in checkpoints.of_job(connection, job_id)])
