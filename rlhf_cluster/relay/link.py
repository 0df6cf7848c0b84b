"""The relay's routes of the service, asked over HTTP: a bounded number of tries, and three errors that mean something.

Unreachable   nobody answers, or not with sense: everything waits on disk, and is asked again later
Superseded    another attempt has the job now, or this one has ended: its driver must end
Refused       what was sent is wrong; sending it again changes nothing
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import ValidationError

from rlhf_cluster.errors import RlhfError
from rlhf_cluster.wire.base import Message, Problem
from rlhf_cluster.wire.relay import Answered, Commands, Ended, Ingest, Ingested, Register, Registered

ROUTES = "/api/v1/relay"
PARQUET = "application/vnd.apache.parquet"
MAX_BACKOFF_S = 5.0
BUSY = (408, 425, 429)
TOO_LARGE = 413

Told = TypeVar("Told", bound=Message)


class Unreachable(RlhfError):
    pass


class Superseded(RlhfError):
    pass


class Refused(RlhfError):
    pass


class Link:
    """One attempt's way to the service; open it with `async with`."""

    def __init__(
        self, url: str, *, token: str, num_tries: int = 4, backoff_s: float = 0.2, timeout_s: float = 30.0
    ) -> None:
        self._url = url.rstrip("/")
        self._num_tries = num_tries
        self._backoff_s = backoff_s
        # What the environment says of proxies is for the way out of the cluster, not for the service.
        self._client = httpx.AsyncClient(
            base_url=self._url + ROUTES,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=timeout_s,
            trust_env=False,
        )

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def register(self, who: Register) -> Registered:
        return await self._ask("POST", "/register", Registered, json_text=who.model_dump_json())

    async def ingest(self, news: Ingest) -> Ingested:
        # Not pydantic's own JSON: a journal may hold text that is no UTF-8, which is replaced here and refused there.
        text = json.dumps(news.model_dump(), ensure_ascii=False)
        return await self._ask("POST", "/ingest", Ingested, json_text=text)

    async def samples(self, name: str, content: bytes) -> None:
        await self._send("PUT", f"/samples/{name}", content=content, headers={"Content-Type": PARQUET})

    async def bundle(self, path: Path) -> None:
        """Into the file at `path`."""
        response = await self._send("GET", "/bundle")
        path.write_bytes(response.content)

    async def commands(self, *, held: list[str], wait_s: float) -> Commands:
        """Waits up to `wait_s` for one that is not `held` already."""
        timeout = httpx.Timeout(30.0, read=wait_s + 30.0)
        return await self._ask("GET", "/commands", Commands, params={"wait": wait_s, "held": held}, timeout=timeout)

    async def answer(self, command_id: str, answered: Answered) -> None:
        await self._send("POST", f"/commands/{command_id}/answer", **_json(answered.model_dump_json()))

    async def ended(self, how: Ended) -> None:
        await self._send("POST", "/ended", **_json(how.model_dump_json()))

    async def _ask(self, method: str, path: str, kind: type[Told], *, json_text: str = "", **options: Any) -> Told:
        response = await self._send(method, path, **(_json(json_text) if json_text else {}), **options)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise Unreachable(f"{self._url} answers, but not as the service does: {error}") from error

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        for number in range(1, self._num_tries + 1):
            try:
                response = await self._client.request(method, path, **options)
            except httpx.TransportError as error:
                why = f"{type(error).__name__}: {error}".rstrip(": ")
                after_s = 0.0
            else:
                if response.is_success:
                    return response
                why = _complaint(response)
                after_s = _retry_after_s(response.headers)
                _raise_if_final(response, why)
            if number < self._num_tries:
                await asyncio.sleep(max(after_s, self._pause_s(number)))
        raise Unreachable(f"{self._url} could not be reached in {self._num_tries} tries: {why}")

    def _pause_s(self, number: int) -> float:
        # A service that comes back must not be met by all relays at one moment.
        return min(MAX_BACKOFF_S, self._backoff_s * 2 ** (number - 1)) * random.uniform(0.5, 1.0)


def _raise_if_final(response: httpx.Response, why: str) -> None:
    """A proxy in between may say anything while the service is away; its words end no job, but a bound is a bound."""
    if response.status_code == TOO_LARGE:
        raise Refused(why)
    problem = _problem(response)
    if problem is None or problem.status in BUSY or problem.status >= 500:
        return
    raise (Superseded if problem.code in ("superseded", "unauthenticated") else Refused)(why)


def _problem(response: httpx.Response) -> Problem | None:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        return None


def _complaint(response: httpx.Response) -> str:
    problem = _problem(response)
    return f"{response.status_code}: {problem.detail}" if problem else f"{response.status_code} without a reason"


def _retry_after_s(headers: Mapping[str, str]) -> float:
    given = headers.get("retry-after", "")
    return min(MAX_BACKOFF_S, float(given)) if given.isdecimal() else 0.0


def _json(text: str) -> dict[str, Any]:
    return {"content": text.encode("utf-8", "replace"), "headers": {"Content-Type": "application/json"}}
