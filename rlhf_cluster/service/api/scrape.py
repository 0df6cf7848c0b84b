"""`/metrics` for Prometheus, outside of /api. It needs the scope read, unless the settings open it."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.concurrency import run_in_threadpool

from rlhf_cluster.service.auth import requires

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=PlainTextResponse)
async def scrape(request: Request) -> Response:
    """Jobs by state, requests, ingested rows, event streams, and of running jobs their step and some metrics."""
    service = request.app.state.service
    if not service.settings.open_metrics:
        await requires("read")(request)
    return Response(await run_in_threadpool(service.exposition.text), media_type=CONTENT_TYPE_PLAIN_0_0_4)
