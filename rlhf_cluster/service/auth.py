"""Who asks, and what they may do.

A program sends `Authorization: Bearer`, the page a cookie that no script can read. A cookie travels with every request
of the browser, so one that changes something must come from the page itself: browsers say so in `Sec-Fetch-Site` and
`Origin`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from sqlalchemy import Connection, Row
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool

from rlhf_cluster.service.ids import digest
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.store import tokens
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.wire.access import Scope

SCOPES: tuple[Scope, ...] = ("read", "label", "submit", "admin")
"""Each allows what those before it do."""
COOKIE = "rlhf_session"
SESSION_S = 12 * 3600.0
NEEDS = "needs_scope"
"""Of a dependency: the scope without which it lets nobody through, for the description of the API."""
SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    token_id: str
    name: str
    scopes: tuple[Scope, ...]
    by_cookie: bool = False

    def may(self, scope: Scope) -> bool:
        return any(SCOPES.index(has) >= SCOPES.index(scope) for has in self.scopes)


EVERYBODY = Caller(token_id="", name="local", scopes=("admin",))
"""Where the service was started without authentication."""


async def caller_of(request: Request) -> Caller:
    """Raises 401 without a valid token, 403 for a change that another site's page asks for, and 429 after too many
    tokens that were none."""
    service = request.app.state.service
    if not service.settings.auth:
        refuse_other_sites(request)
        request.state.who = EVERYBODY.name
        return EVERYBODY
    secret, by_cookie = _secret(request)
    row = await _found(request, secret, tokens.of_secret_whatever_its_age) if secret else None
    now_s = time.time()
    if row is None or tokens.is_over(row, now_s=now_s) or tokens.is_login(row):
        what = "the token is not valid: it is mistyped, revoked or expired" if secret else "a token is needed"
        raise unauthenticated(f"{what}; `rlhf login` stores one")
    if by_cookie:
        refuse_other_sites(request)
    if row.last_used_s is None or now_s - row.last_used_s >= tokens.USED_EVERY_S:
        noting = functools.partial(_note_use, service.db, row.token_id, now_s)
        await service.shared.get(("used", row.token_id), functools.partial(run_in_threadpool, noting))
    request.state.who = row.name
    return Caller(token_id=row.token_id, name=row.name, scopes=tuple(row.scopes), by_cookie=by_cookie)


async def _found(request: Request, secret: str, find: Callable[[Connection, str], Row | None]) -> Row | None:
    """Whose secret it is, looked up once for all who come with it, until the database changes."""
    service = request.app.state.service

    def look() -> Row | None:
        with service.db.reading() as connection:
            return find(connection, secret)

    row = await service.shared.get((find, digest(secret)), functools.partial(run_in_threadpool, look))
    if row is None:
        note_wrong(request)
    return row


def note_wrong(request: Request) -> None:
    """A secret that nobody has. Raises 429 where too many of them came from this address."""
    wait_s = request.app.state.service.failures.failed(_address(request), now_s=time.monotonic())
    if wait_s > 0:
        seconds = math.ceil(wait_s)
        detail = f"too many wrong tokens came from {_address(request)}: come again in {seconds} s"
        raise ApiProblem(429, "too_many_failures", detail, headers={"Retry-After": str(seconds)})


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _note_use(db: Database, token_id: str, now_s: float) -> None:
    # Reading must not need writing: where others write for long, this use is not noted, and the next one is.
    with contextlib.suppress(OperationalError), db.writing() as connection:
        tokens.used(connection, token_id, now_s=now_s)


def unauthenticated(detail: str) -> ApiProblem:
    return ApiProblem(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})


def _secret(request: Request) -> tuple[str, bool]:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and secret:
        return secret.strip(), False
    return request.cookies.get(COOKIE, ""), True


def refuse_other_sites(request: Request) -> None:
    """Raises 403 for a change that a page of another site asks for, as browsers tell."""
    if request.method in SAFE:
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none") or (origin is not None and not _is_own(origin, request)):
        raise ApiProblem(403, "cross_site", "a page of another site asked for this change; it was refused")


def _is_own(origin: str, request: Request) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower() != ""
    except ValueError:
        return False


def requires(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    """A dependency that lets through whoever has `scope`."""

    async def check(request: Request) -> Caller:
        caller = await caller_of(request)
        if not caller.may(scope):
            raise ApiProblem(
                403,
                "forbidden",
                f"this needs the scope {scope!r}; the token {caller.name!r} has {', '.join(caller.scopes)}",
            )
        return caller

    setattr(check, NEEDS, scope)
    return check


async def attempt_of(request: Request) -> Any:
    """The attempt whose relay asks. Raises 401 for any other secret, also for those of people."""
    secret, by_cookie = _secret(request)
    row = await _found(request, secret, tokens.attempt_of_secret) if secret and not by_cookie else None
    if row is None:
        raise unauthenticated("this is for the relay of an attempt, with the attempt's own token")
    request.state.who = f"{row.job_id}/{row.number}"
    return row


Reader = Annotated[Caller, Depends(requires("read"))]
Labeler = Annotated[Caller, Depends(requires("label"))]
Submitter = Annotated[Caller, Depends(requires("submit"))]
Admin = Annotated[Caller, Depends(requires("admin"))]
Relay = Annotated[Any, Depends(attempt_of)]
