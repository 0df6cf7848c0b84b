"""What surrounds every request: an id, the host check, a bound of its body, headers for browsers, the audit of changes,
one log line, and an answer also where everything failed.

Plain ASGI, so that answers and streams pass through as they are; wrapped into tasks of their own they cost twice.
"""

from __future__ import annotations

import logging
import re
import time
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlhf_cluster.service import problems
from rlhf_cluster.service.auth import SAFE
from rlhf_cluster.service.bodies import declares_too_much, no_more_than
from rlhf_cluster.service.ids import new_id
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store.tables import audit

log = logging.getLogger("rlhf_cluster.service.requests")
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
BROWSER = {
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
}
"""For every answer; one that has such a header of its own keeps it."""
NOT_AUDITED = "/api/v1/relay"
"""Sent by programs every second; what comes of it is in the job's own records."""
PROBES = ("/healthz", "/readyz")
"""Asked under the address of a pod, which no service knows, and telling nothing that anybody could want."""


def install(app: FastAPI, settings: ServiceSettings) -> None:
    app.add_middleware(Around, settings=settings)


class Around:
    """Outside of every route, and inside of what Starlette does where even this fails."""

    def __init__(self, app: ASGIApp, *, settings: ServiceSettings) -> None:
        self._app = app
        self._hosts = allowed_hosts(settings)
        self._max_body_bytes = settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _noted(scope, receive)
        begun_s = time.monotonic()
        is_begun = False

        async def told(message: Message) -> None:
            nonlocal is_begun
            if message["type"] == "http.response.start":
                is_begun = True
                _add_headers(message, request)
                # Before the answer leaves: whoever has it can find the change in the audit.
                await _note(request, message["status"], time.monotonic() - begun_s)
            await send(message)

        try:
            if refusal := self._refusal(request):
                await refusal(scope, receive, told)
            else:
                await self._app(scope, no_more_than(self._max_body_bytes, request, receive), told)
        except Exception as error:
            if is_begun:
                raise
            await problems.unexpected(request, error)(scope, receive, told)

    def _refusal(self, request: Request) -> ASGIApp | None:
        host = host_of(request.headers.get("host", ""))
        if self._hosts and host not in self._hosts and _path(request) not in PROBES:
            detail = f"host {host[:100]!r} is none of this service's names; name it in allowed_hosts if it is"
            return problems.answer(request, 421, "unknown_host", detail)
        if declares_too_much(request, max_bytes=self._max_body_bytes):
            return problems.too_large(request, self._max_body_bytes)
        return None


def allowed_hosts(settings: ServiceSettings) -> set[str]:
    """Empty where any name will do: an open service is asked under names that it cannot know."""
    if settings.host in ("0.0.0.0", "::") and not settings.allowed_hosts:
        return set()
    own = {"127.0.0.1", "localhost", "::1", settings.host.lower(), *map(str.lower, settings.allowed_hosts)}
    return own | ({host_of(settings.public_url.split("://")[-1])} if settings.public_url else set())


def host_of(authority: str) -> str:
    """Without the port; empty for what is no host at all."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


def _noted(scope: Scope, receive: Receive) -> Request:
    request = Request(scope, receive)
    given = request.headers.get("x-request-id", "")
    request.state.request_id = given if REQUEST_ID.fullmatch(given) else new_id("req")
    request.state.who = ""
    return request


def _path(request: Request) -> str:
    """As routes see it: a proxy may have left its own part before it."""
    path, root = request.scope["path"], request.scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _add_headers(message: Message, request: Request) -> None:
    message["headers"] = [*message.get("headers", ())]  # an answer may be given to many
    headers = MutableHeaders(raw=message["headers"])
    headers["X-Request-ID"] = request.state.request_id
    for name, value in BROWSER.items():
        headers.setdefault(name, value)


async def _note(request: Request, status: int, seconds: float) -> None:
    request.app.state.service.exposition.answered(request.method, status)
    path, state = request.scope["path"], request.state
    log.info(
        "%s %s %d",
        request.method,
        path,
        status,
        extra={"request_id": state.request_id, "who": state.who, "duration_s": round(seconds, 4)},
    )
    if request.method in SAFE or status == 429 or _path(request).startswith(NOT_AUDITED):
        return
    values = {
        "time_s": time.time(),
        "who": state.who,
        "method": request.method,
        "path": path,
        "status": status,
        "request_id": state.request_id,
        "is_ok": status < 400,
    }

    def write() -> None:
        with request.app.state.service.db.writing() as connection:
            connection.execute(insert(audit).values(values))

    try:
        await run_in_threadpool(write)
    except SQLAlchemyError:
        # What was done is done, and what was refused for the same reason says so: neither is to be told as a failure.
        log.exception("the audit lacks: %s %s %s %d", state.who, request.method, path, status)
