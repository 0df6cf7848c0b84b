"""What many ask for at once is found out once: answers, and who has which token.

Everything here lasts as long as the database is the same (`Database.stamp`) and not a moment longer, so nobody is told
less than was there when they asked: a change that was made, by whatever process, is seen by the next request.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any

from fastapi import Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.routing import APIRoute

from rlhf_cluster.service.auth import caller_of
from rlhf_cluster.service.store.database import Database

MAX_KEPT_BYTES = 2**18
"""Of one answer. A larger one is shared only by those who wait for it together."""
MAX_FINDINGS = 1000
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Shared:
    """Findings by key, until the database changes. Those that are under way belong to the loop that began them."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._stamp: Hashable = None
        self._found: dict[Hashable, asyncio.Task[Any]] = {}

    async def get(self, key: Hashable, find: Callable[[], Awaitable[Any]]) -> Any:
        """What `find` gives, or has given to somebody else since the database changed last. Raises what it raises."""
        stamp = self._db.quick_stamp()
        if stamp is None:
            stamp = await asyncio.to_thread(self._db.stamp)
        if stamp != self._stamp or len(self._found) >= MAX_FINDINGS:
            self._stamp, self._found = stamp, {}
        place = (asyncio.get_running_loop(), key)
        task = self._found.get(place)
        if task is None:
            task = self._found[place] = asyncio.ensure_future(_of(find))
            task.add_done_callback(lambda done: self._keep(place, done))
        # Whoever asked first may go away before the others have their answer.
        return await asyncio.shield(task)

    def _keep(self, place: Hashable, task: asyncio.Task[Any]) -> None:
        is_worth_it = not task.cancelled() and task.exception() is None and _num_bytes(task.result()) <= MAX_KEPT_BYTES
        if not is_worth_it and self._found.get(place) is task:
            del self._found[place]


async def _of(find: Callable[[], Awaitable[Any]]) -> Any:
    return await find()


def _num_bytes(found: Any) -> int:
    return len(found.body) if isinstance(found, Response) else 0


class SharedRoute(APIRoute):
    """A GET whose answer is the same for everybody who may read: made once, and with a tag, so that whoever has it
    already is told so in a few bytes."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        if self.methods != {"GET"} or not isinstance(self.response_class, DefaultPlaceholder):
            return handle

        async def share(request: Request) -> Response:
            await caller_of(request)
            has = request.headers.get("if-none-match")
            key = (request.scope["path"], request.scope.get("query_string", b""), has)
            return await request.app.state.service.shared.get(key, lambda: _tagged(handle, request, has))

        return share


async def _tagged(handle: Handler, request: Request, has: str | None) -> Response:
    response = await handle(request)
    if response.status_code != 200 or "etag" in response.headers:
        return response
    etag = f'"{hashlib.sha256(response.body).hexdigest()[:16]}"'
    if has is not None and etag in [each.strip().removeprefix("W/") for each in has.split(",")]:
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return response
