"""Who asks, and what they may do.

A program sends `Authorization: Bearer`, the page a cookie that no script can read. A cookie travels with every request
of the browser, so one that changes something must come from the page itself: browsers say so in `Sec-Fetch-Site` and
`Origin`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from sqlalchemy import Row

from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.store import tokens
from rlhf_cluster.wire.access import Scope

SCOPES: tuple[Scope, ...] = ("read", "label", "submit", "admin")
"""Each allows what those before it do."""
COOKIE = "rlhf_session"
SESSION_S = 12 * 3600.0
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


def caller_of(request: Request) -> Caller:
    """Raises 401 without a valid token, and 403 for a change that another site's page asks for."""
    service = request.app.state.service
    if not service.settings.auth:
        _refuse_other_sites(request)
        return EVERYBODY
    secret, by_cookie = _secret(request)
    now_s = time.time()
    with service.db.reading() as connection:
        row = tokens.of_secret(connection, secret, now_s=now_s) if secret else None
    if row is None or tokens.is_login(row):
        what = "the token is not valid: it was revoked, or has expired" if secret else "a token is needed"
        raise ApiProblem(
            401, "unauthenticated", f"{what}; `rlhf login` stores one", headers={"WWW-Authenticate": "Bearer"}
        )
    if by_cookie:
        _refuse_other_sites(request)
    if row.last_used_s is None or now_s - row.last_used_s >= tokens.USED_EVERY_S:
        with service.db.writing() as connection:
            tokens.used(connection, row.token_id, now_s=now_s)
    return Caller(token_id=row.token_id, name=row.name, scopes=tuple(row.scopes), by_cookie=by_cookie)


def _secret(request: Request) -> tuple[str, bool]:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and secret:
        return secret.strip(), False
    return request.cookies.get(COOKIE, ""), True


def _refuse_other_sites(request: Request) -> None:
    if request.method in SAFE:
        return
    origin = request.headers.get("origin")
    same_origin = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or not same_origin:
        raise ApiProblem(403, "cross_site", "a page of another site asked for this change; it was refused")


def requires(scope: Scope) -> Callable[..., Caller]:
    """A dependency that lets through whoever has `scope`."""

    def check(request: Request) -> Caller:
        caller = caller_of(request)
        request.state.who = caller.name
        if not caller.may(scope):
            raise ApiProblem(
                403,
                "forbidden",
                f"this needs the scope {scope!r}; the token {caller.name!r} has {', '.join(caller.scopes)}",
            )
        return caller

    return check


def attempt_of(request: Request) -> Any:
    """The attempt whose relay asks. Raises 401 for any other secret, also for those of people."""
    secret, by_cookie = _secret(request)
    row: Row | None = None
    if secret and not by_cookie:
        with request.app.state.service.db.reading() as connection:
            row = tokens.attempt_of_secret(connection, secret)
    if row is None:
        raise ApiProblem(401, "unauthenticated", "this is for the relay of an attempt, with the attempt's own token")
    request.state.who = f"{row.job_id}/{row.number}"
    return row


Reader = Annotated[Caller, Depends(requires("read"))]
Labeller = Annotated[Caller, Depends(requires("label"))]
Submitter = Annotated[Caller, Depends(requires("submit"))]
Admin = Annotated[Caller, Depends(requires("admin"))]
Relay = Annotated[Any, Depends(attempt_of)]
