"""`Idempotency-Key`: a request that is sent again, because its answer was lost, gets that answer and does nothing.

What is done and the answer to it are one transaction. So the second of two at once waits for the first, and one that
fails leaves nothing behind, not even its key: it can be sent again under the same one.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import Connection

from rlhf_cluster.service.auth import Caller
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.store import answers
from rlhf_cluster.wire.base import Message

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="Of the client's choice, kept for a day: the same request under the same key is done once.",
    ),
]
JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a request has done, as it is answered."""

    message: Message
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


def once(
    request: Request, caller: Caller, key: str | None, body: BaseModel | None, *, work: Callable[[Connection], Done]
) -> Response:
    """The answer of `work`, which runs in the transaction, or the one that it gave to the same request before.

    Raises 422 for another request under the same key.
    """
    with request.app.state.service.db.writing() as connection:
        if key is None:
            return _response(work(connection))
        found = answers.begin(
            connection, token_id=caller.token_id, key=key, request_sha256=_digest(request, body), now_s=time.time()
        )
        if isinstance(found, answers.Saved):
            replayed = {**(found.headers or {}), "Idempotency-Replayed": "true"}
            return Response(found.body, found.status, headers=replayed, media_type=JSON)
        _refuse(found, key)
        response = _response(done := work(connection))
        answers.finish(
            connection,
            token_id=caller.token_id,
            key=key,
            status=done.status,
            headers=dict(done.headers),
            body=bytes(response.body).decode(),
        )
        return response


def _refuse(found: object, key: str) -> None:
    if isinstance(found, answers.Mismatch):
        detail = f"Idempotency-Key {key!r} was used for another request: choose a new key for a new one"
        raise ApiProblem(422, "idempotency_key_reused", detail)
    if isinstance(found, answers.InFlight):
        detail = f"the first request with Idempotency-Key {key!r} is still under way: ask again"
        raise ApiProblem(409, "request_in_flight", detail, headers={"Retry-After": "1"})


def _response(done: Done) -> Response:
    return Response(done.message.model_dump_json(), done.status, headers=dict(done.headers), media_type=JSON)


def _digest(request: Request, body: BaseModel | None) -> str:
    content = body.model_dump_json() if body else ""
    return hashlib.sha256(f"{request.method} {request.url.path}\n{content}".encode()).hexdigest()
