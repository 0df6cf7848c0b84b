"""Tokens of people and programs; only an admin hands them out."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request

from rlhf_cluster.service.auth import Admin
from rlhf_cluster.service.problems import ApiProblem, not_found
from rlhf_cluster.service.store import tokens
from rlhf_cluster.wire.access import CreateToken, NewToken, Token
from rlhf_cluster.wire.base import Page

router = APIRouter(prefix="/tokens", tags=["tokens"])


@router.get("")
def list_tokens(request: Request, caller: Admin) -> Page[Token]:
    with request.app.state.service.db.reading() as connection:
        return Page(items=[Token.model_validate(row) for row in tokens.every(connection)])


@router.post("", status_code=201)
def create_token(request: Request, caller: Admin, body: CreateToken) -> NewToken:
    """The only answer that holds the secret."""
    now_s = time.time()
    if body.expires_s is not None and body.expires_s <= now_s:
        raise ApiProblem(422, "invalid_request", f"expires_s = {body.expires_s:g} is in the past")
    with request.app.state.service.db.writing() as connection:
        row, secret = tokens.add(connection, name=body.name, scopes=body.scopes, now_s=now_s, expires_s=body.expires_s)
    return NewToken(**Token.model_validate(row).model_dump(), secret=secret)


@router.delete("/{token_id}", status_code=204)
def revoke_token(request: Request, caller: Admin, token_id: str) -> None:
    with request.app.state.service.db.writing() as connection:
        if not tokens.revoke(connection, token_id, now_s=time.time()):
            raise not_found("token", token_id)
