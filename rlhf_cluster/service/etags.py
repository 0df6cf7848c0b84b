"""Tags of things that people change: `"3.9f86d081"`, the version that people's changes make, and a digest of the rest.

A GET with `If-None-Match` compares the whole tag, so that a client sees every step of a job. A change with `If-Match`
compares the version alone: a job's progress must not refuse somebody who changes its notes.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, TypeVar

from fastapi import Header, Response

from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.wire.base import Message

IfMatch = Annotated[str | None, Header(max_length=400, description="ETag of what is to be changed, or `*`.")]
IfNoneMatch = Annotated[str | None, Header(max_length=400, description="ETag of what the client has: 304 if it is so.")]
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "It is as `If-None-Match` says."}}
Content = TypeVar("Content", bound=Message)
TAG = re.compile(r'(?:W/)?"?(\d{1,9})(?:\.[0-9a-f]*)?"?')


def tag(version: int, content: Message) -> str:
    return f'"{version}.{hashlib.sha256(content.model_dump_json().encode()).hexdigest()[:16]}"'


def fresh(content: Content, version: int, *, has: str | None, response: Response) -> Content | Response:
    """`content` with its tag, or 304 for a client that `has` it."""
    etag = tag(version, content)
    if has is not None and etag in [each.strip().removeprefix("W/") for each in has.split(",")]:
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return content


def check_match(given: str | None, version: int, *, what: str, is_required: bool = False) -> None:
    """Raises 412 where the client has seen another version, 428 where it must say which one it has seen."""
    if given is None:
        if is_required:
            detail = f"send If-Match with the ETag of the {what} that you have seen, or * to change whatever it is now"
            raise ApiProblem(428, "if_match_required", detail)
        return
    found = [TAG.fullmatch(each.strip()) for each in given.split(",")]
    if given.strip() != "*" and not any(match and int(match[1]) == version for match in found):
        detail = f"the {what} was changed meanwhile: it is at {version}, If-Match is {given}; read it again"
        raise ApiProblem(412, "changed_meanwhile", detail)
