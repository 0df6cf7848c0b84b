"""Logging in to the page: a token for a cookie, and who one is."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

import rlhf_cluster
from rlhf_cluster.service.auth import (
    COOKIE,
    SESSION_S,
    Caller,
    Reader,
    caller_of,
    note_wrong,
    refuse_other_sites,
    unauthenticated,
)
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.store import tokens
from rlhf_cluster.wire.access import LoginLink, Me, OpenSession, Version

LOGIN_S = 300.0

router = APIRouter(tags=["session"])


@router.get("/version")
def version() -> Version:
    return Version(version=rlhf_cluster.__version__)


@router.post("/auth/session", status_code=201)
def open_session(request: Request, response: Response, body: OpenSession) -> Me:
    """The cookie holds a secret of its own, which ends by itself and which logging out revokes."""
    refuse_other_sites(request)  # of a browser: it would be logged in as somebody else
    service, now_s = request.app.state.service, time.time()
    with service.db.reading() as connection:
        is_wrong = tokens.of_secret(connection, body.token, now_s=now_s) is None
    if is_wrong:  # before anything is written
        note_wrong(request)
    with service.db.writing() as connection:
        row = tokens.of_secret(connection, body.token, now_s=now_s)
        if row is None:
            raise unauthenticated("the token is not valid: it was used, was revoked, or has expired")
        if tokens.is_login(row):
            tokens.revoke(connection, row.token_id, now_s=now_s)
            expires_s = now_s + SESSION_S
        else:
            expires_s = min(now_s + SESSION_S, row.expires_s or float("inf"))
        _, secret = tokens.add(
            connection, name=row.name, scopes=row.scopes, now_s=now_s, expires_s=expires_s, parent=row
        )
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(expires_s - now_s),
        path=request.scope.get("root_path") or "/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https" or (service.settings.public_url or "").startswith("https://"),
    )
    request.state.who = row.name
    return Me(name=row.name, scopes=row.scopes)


@router.post("/auth/login-links", status_code=201)
def create_login_link(request: Request, caller: Reader) -> LoginLink:
    """What follows `#` is sent to no server and stands in no log; it is good for five minutes and one login."""
    service, now_s = request.app.state.service, time.time()
    expires_s = now_s + LOGIN_S
    with service.db.writing() as connection:
        own = tokens.get(connection, caller.token_id)
        if own is None or own.expires_s is not None:
            raise ApiProblem(403, "forbidden", "only a token that does not expire may open sessions for others")
        _, secret = tokens.add(
            connection,
            name=caller.name,
            scopes=caller.scopes,
            now_s=now_s,
            expires_s=expires_s,
            kind=tokens.LOGIN,
            parent=own,
        )
    return LoginLink(url=f"{service.settings.url}/login#token={secret}", expires_s=expires_s)


@router.delete("/auth/session", status_code=204)
def close_session(request: Request, response: Response, caller: Annotated[Caller, Depends(caller_of)]) -> None:
    if caller.by_cookie:
        with request.app.state.service.db.writing() as connection:
            tokens.revoke(connection, caller.token_id, now_s=time.time())
    response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/")


@router.get("/auth/me")
def me(caller: Reader) -> Me:
    return Me(name=caller.name, scopes=list(caller.scopes))
