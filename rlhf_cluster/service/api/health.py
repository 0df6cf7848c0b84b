"""For whoever keeps the service alive, outside of /api and without a token."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rlhf_cluster.service.problems import ApiProblem

router = APIRouter(tags=["health"])


@router.get("/healthz")
def alive() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz")
def ready(request: Request) -> dict[str, str]:
    """503 until the database answers and every migration has run."""
    if not request.app.state.service.db.is_current():
        detail = "the database is not migrated: a start of the service migrates it"
        raise ApiProblem(503, "not_ready", detail, headers={"Retry-After": "2"})
    return {"status": "ok"}
