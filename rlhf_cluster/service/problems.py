"""Every answer that is no success, in one shape (RFC 9457), and never with a traceback."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from rlhf_cluster.errors import ConfigError, RlhfError
from rlhf_cluster.service.bodies import sentence
from rlhf_cluster.wire.base import FieldProblem, Problem

MEDIA_TYPE = "application/problem+json"
CODES = {
    400: "malformed_body",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media",
}

log = logging.getLogger(__name__)


class ApiProblem(Exception):
    """Raised anywhere in a request; becomes the answer."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers or {}


def not_found(what: str, name: str) -> ApiProblem:
    return ApiProblem(404, "not_found", f"there is no {what} {name!r}")


def install(app: FastAPI) -> None:
    """Turn every kind of failure into a problem."""
    app.add_exception_handler(ApiProblem, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ConfigError, _config)
    app.add_exception_handler(RlhfError, _ours)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(PoolTimeout, _database)
    app.add_exception_handler(ClientDisconnect, _cut_off)
    app.add_exception_handler(Exception, unexpected)


def answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldProblem] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        code=code,
        errors=list(errors),
        request_id=getattr(request.state, "request_id", ""),
    )
    return JSONResponse(problem.model_dump(), status, headers=headers, media_type=MEDIA_TYPE)


def _told(request: Request, error: Any) -> JSONResponse:
    return answer(request, error.status, error.code, error.detail, errors=error.errors, headers=error.headers)


def _invalid(request: Request, error: Any) -> JSONResponse:
    errors = [
        FieldProblem(loc=".".join(str(part) for part in e["loc"][1:]) or "body", msg=e["msg"]) for e in error.errors()
    ]
    detail = "; ".join(f"{each.loc}: {each.msg}" for each in errors[:5])
    return answer(request, 422, "invalid_request", detail, errors=errors)


def _http(request: Request, error: Any) -> JSONResponse:
    code = CODES.get(error.status_code, "request_failed")
    return answer(request, error.status_code, code, str(error.detail), headers=error.headers)


def too_large(request: Request, max_bytes: int) -> JSONResponse:
    return answer(request, 413, CODES[413], sentence(max_bytes))


def _config(request: Request, error: Any) -> JSONResponse:
    return answer(request, 422, "invalid_job", str(error))


def _ours(request: Request, error: Any) -> JSONResponse:
    log.error("request failed", exc_info=error)
    return answer(request, 500, "failed", str(error))


def _database(request: Request, error: Any) -> JSONResponse:
    log.error("the database refused", exc_info=error)
    why = str(getattr(error, "orig", error)).splitlines()[0]
    detail = f"the database cannot serve this now ({why}); nothing was changed: try again"
    return answer(request, 503, "database_unavailable", detail, headers={"Retry-After": "2"})


def _cut_off(request: Request, error: Any) -> JSONResponse:
    """Nobody reads it any more; for the audit and the log, it is the client that has failed."""
    return answer(request, 400, CODES[400], "the connection ended in the middle of the request")


def unexpected(request: Request, error: Any) -> JSONResponse:
    log.error("request failed", exc_info=error)
    request_id = getattr(request.state, "request_id", "")
    return answer(request, 500, "internal", f"the service failed; its log tells more under request {request_id}")
