"""Asks a web service by POST, patiently and within bounds.

Timeouts, lost connections and the statuses 408, 429 and 5xx are tried again after a growing, jittered wait; any other
status is final. One time limit covers a request with all its retries.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Mapping, Sequence

import httpx

from rlhf_cluster.rewards.sample import Failure, shorten
from rlhf_cluster.rewards.settings import RequestBounds

RETRIED_STATUSES = frozenset({408, 429})
LONGEST_BACKOFF_S = 30.0


class Asking:
    """Belongs to one event loop. `rng` draws the jitter; `secrets` are blotted out of what failures say."""

    def __init__(
        self,
        bounds: RequestBounds,
        *,
        headers: Mapping[str, str],
        secrets: Sequence[str] = (),
        rng: random.Random | None = None,
    ) -> None:
        self._bounds = bounds
        self._secrets = tuple(secrets)
        self._rng = rng or random.Random()
        self._requests = asyncio.Semaphore(bounds.num_concurrent)
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=None,  # bounded from outside: its own limits restart with every byte that drips in
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=bounds.num_concurrent),
        )

    async def ask(self, url: str, body: bytes) -> bytes | Failure:
        """The answer's body, or why there is none."""
        async with self._requests:
            return await self._ask(url, body)

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, url: str, body: bytes) -> bytes | Failure:
        # The key lets a service recognise a request that it has answered already and whose answer was lost.
        headers = {"content-type": "application/json", "idempotency-key": uuid.uuid4().hex}
        bounds = self._bounds
        failure = Failure(kind="timed_out", message=f"no answer within {bounds.time_limit_s:g} s")
        try:
            async with asyncio.timeout(bounds.time_limit_s):
                for attempt in range(bounds.num_retries + 1):
                    await asyncio.sleep(self._backoff_s(attempt))
                    answer, is_final = await self._attempt(url, body, headers)
                    if is_final or isinstance(answer, bytes):
                        return answer
                    failure = answer
        except TimeoutError:
            return Failure(kind=failure.kind, message=f"{failure.message} (gave up after {bounds.time_limit_s:g} s)")
        num_attempts = bounds.num_retries + 1
        return Failure(kind=failure.kind, message=f"{failure.message} (gave up after {num_attempts} attempts)")

    async def _attempt(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[bytes | Failure, bool]:
        """The answer or its failure, and whether asking again is pointless."""
        limit_s = self._bounds.attempt_limit_s
        try:
            async with (
                asyncio.timeout(limit_s),
                self._client.stream("POST", url, content=body, headers=headers) as response,
            ):
                answer = await self._read(response)
        except TimeoutError:
            return Failure(kind="timed_out", message=f"no answer within {limit_s:g} s"), False
        except httpx.TransportError as error:
            return Failure(kind="unavailable", message=shorten(f"{type(error).__name__}: {error}")), False
        except httpx.HTTPError as error:
            return Failure(kind="not_a_number", message=shorten(f"{type(error).__name__}: {error}")), True
        if isinstance(answer, Failure) or response.is_success:
            return answer, True
        return _refusal(response.status_code, self._blotted(answer))

    async def _read(self, response: httpx.Response) -> bytes | Failure:
        bound = self._bounds.max_body_bytes
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > bound:
                return Failure(kind="not_a_number", message=f"the answer is longer than max_body_bytes = {bound}")
        return bytes(body)

    def _backoff_s(self, attempt: int) -> float:
        """Before attempt 0 nothing; then drawn from [0, b], b doubling: many servers do not return at one moment."""
        if attempt == 0:
            return 0.0
        return self._rng.uniform(0.0, min(LONGEST_BACKOFF_S, self._bounds.backoff_s * 2.0 ** (attempt - 1)))

    def _blotted(self, body: bytes) -> bytes:
        """A service may quote the key that it refuses."""
        for secret in self._secrets:
            body = body.replace(secret.encode(), b"***")
        return body


def _refusal(status: int, body: bytes) -> tuple[Failure, bool]:
    message = shorten(f"status {status}: {body[:300].decode(errors='replace')}")
    if status in RETRIED_STATUSES or status >= 500:
        return Failure(kind="unavailable", message=message), False
    if 300 <= status < 400:
        message = f"status {status}: redirects are not followed; set `url` to where it leads"
    return Failure(kind="raised", message=message), True
