"""For whoever keeps the service alive, outside of /api and without a token."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

router = APIRouter(tags=["health"])


@router.get("/healthz")
def alive() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz")
def ready(request: Request) -> JSONResponse:
    """503 until the database answers and every migration has run."""
    is_ready = request.app.state.service.db.is_current()
    return JSONResponse({"status": "ok" if is_ready else "the database is not migrated"}, 200 if is_ready else 503)
