"""How much a request may send: a body is in memory before anybody knows who sent it, so it is bounded for everybody.

Files have a bound of their own, and routes that take them piece by piece.
"""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

FILES = ("/api/v1/uploads/", "/api/v1/relay/samples/")
"""Their routes count what they take."""


def declares_too_much(request: Request, *, max_bytes: int) -> bool:
    """Known before the first byte of the body, where the client says how long it is."""
    length = request.headers.get("content-length", "")
    return length.isdecimal() and int(length[:20]) > max_bytes and not _is_file(request)


def no_more_than(max_bytes: int, request: Request, receive: Receive) -> Receive:
    """`receive`, which raises 413 when more than `max_bytes` have come, whatever the client said."""
    if _is_file(request):
        return receive
    num_bytes = 0

    async def bounded() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > max_bytes:
            raise HTTPException(413, detail=sentence(max_bytes))
        return message

    return bounded


def sentence(max_bytes: int) -> str:
    return f"a request may have {max_bytes} bytes; this one has more: send less at once"


def _is_file(request: Request) -> bool:
    path, root = request.scope["path"], request.scope.get("root_path", "")
    return request.method == "PUT" and path.removeprefix(root).startswith(FILES)
