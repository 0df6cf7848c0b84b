"""What surrounds every request: an id, the host check, headers for browsers, the audit of changes, one log line."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from sqlalchemy import insert
from starlette.concurrency import run_in_threadpool

from rlhf_cluster.service.auth import SAFE
from rlhf_cluster.service.ids import new_id
from rlhf_cluster.service.problems import answer
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store.tables import audit

log = logging.getLogger("rlhf_cluster.service.requests")
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
BROWSER = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
NOT_AUDITED = "/api/v1/relay"
"""Sent by programs every second; what comes of it is in the job's own records."""


def install(app: FastAPI, settings: ServiceSettings) -> None:
    hosts = allowed_hosts(settings)

    @app.middleware("http")
    async def around(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("x-request-id", "")
        request.state.request_id = given if REQUEST_ID.fullmatch(given) else new_id("req")
        request.state.who = ""
        begun_s = time.monotonic()
        host = request.headers.get("host", "").rsplit(":", 1)[0].strip("[]").lower()
        if hosts and host not in hosts:
            detail = f"host {host!r} is none of this service's names; name it in allowed_hosts if it is"
            response: Response = answer(request, 421, "unknown_host", detail)
        else:
            response = await call_next(request)
        response.headers["X-Request-ID"] = request.state.request_id
        for name, value in BROWSER.items():
            response.headers.setdefault(name, value)
        await _note(request, response, time.monotonic() - begun_s)
        return response


def allowed_hosts(settings: ServiceSettings) -> set[str]:
    """Empty where any name will do: an open service is asked under names that it cannot know."""
    own = {"127.0.0.1", "localhost", "::1", settings.host.lower()}
    if settings.public_url:
        own.add(settings.public_url.split("://")[-1].split("/")[0].rsplit(":", 1)[0].lower())
    if settings.host in ("0.0.0.0", "::") and not settings.allowed_hosts:
        return set()
    return own | {name.lower() for name in settings.allowed_hosts}


async def _note(request: Request, response: Response, seconds: float) -> None:
    path = request.url.path
    request.app.state.service.exposition.answered(request.method, response.status_code)
    log.info(
        "%s %s %d",
        request.method,
        path,
        response.status_code,
        extra={
            "request_id": request.state.request_id,
            "who": request.state.who,
            "duration_s": round(seconds, 4),
        },
    )
    if request.method in SAFE or path.startswith(NOT_AUDITED):
        return
    values = {
        "time_s": time.time(),
        "who": request.state.who,
        "method": request.method,
        "path": path,
        "status": response.status_code,
        "request_id": request.state.request_id,
        "is_ok": response.status_code < 400,
    }

    def write() -> None:
        with request.app.state.service.db.writing() as connection:
            connection.execute(insert(audit).values(values))

    await run_in_threadpool(write)
