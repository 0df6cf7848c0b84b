"""A reward asked of a web service: POST `{"samples": [...]}`, answered by `{"rewards": [...]}` of the same length.

Timeouts, lost connections and the statuses 408, 429 and 5xx are tried again after a growing, jittered wait; any other
status, and any answer that is no list of numbers, is final. One time limit covers a request with all its retries.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import uuid
from collections.abc import Sequence
from typing import Any

import httpx

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.sample import Failure, Outcome, RewardSample, failure_of, outcome_of, shorten
from rlhf_cluster.rewards.settings import HttpReward

RETRIED_STATUSES = frozenset({408, 429})
LONGEST_BACKOFF_S = 30.0


class RemoteReward:
    """Belongs to one event loop. `rng` draws the jitter."""

    def __init__(self, settings: HttpReward, *, rng: random.Random | None = None) -> None:
        self._settings = settings
        self._rng = rng or random.Random()
        self._requests = asyncio.Semaphore(settings.num_concurrent)
        self._client = httpx.AsyncClient(
            headers={name: _header_value(name, value) for name, value in settings.headers.items()},
            timeout=None,  # bounded from outside: its own limits restart with every byte that drips in
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(max_connections=settings.num_concurrent),
        )

    async def score(self, samples: Sequence[RewardSample]) -> list[Outcome]:
        size = self._settings.batch_size
        batches = [samples[first : first + size] for first in range(0, len(samples), size)]
        return [outcome for batch in await asyncio.gather(*map(self._score_batch, batches)) for outcome in batch]

    async def close(self) -> None:
        await self._client.aclose()

    async def _score_batch(self, samples: Sequence[RewardSample]) -> list[Outcome]:
        try:
            body = _request_body(samples)
        except (TypeError, ValueError, RecursionError) as error:  # a data row that JSON cannot hold
            return [failure_of(error)] * len(samples)
        async with self._requests:
            answer = await self._ask(body)
        if isinstance(answer, Failure):
            return [answer] * len(samples)
        return _outcomes(answer, num_samples=len(samples))

    async def _ask(self, body: bytes) -> bytes | Failure:
        """The answer's body, or why there is none."""
        # The key lets a service recognise a request that it has answered already and whose answer was lost.
        headers = {"content-type": "application/json", "idempotency-key": uuid.uuid4().hex}
        failure = Failure(kind="timed_out", message=f"no answer within {self._settings.time_limit_s:g} s")
        try:
            async with asyncio.timeout(self._settings.time_limit_s):
                for attempt in range(self._settings.num_retries + 1):
                    await asyncio.sleep(self._backoff_s(attempt))
                    answer, is_final = await self._attempt(body, headers)
                    if is_final or isinstance(answer, bytes):
                        return answer
                    failure = answer
        except TimeoutError:
            limit_s = self._settings.time_limit_s
            return Failure(kind=failure.kind, message=f"{failure.message} (gave up after {limit_s:g} s)")
        num_attempts = self._settings.num_retries + 1
        return Failure(kind=failure.kind, message=f"{failure.message} (gave up after {num_attempts} attempts)")

    async def _attempt(self, body: bytes, headers: dict[str, str]) -> tuple[bytes | Failure, bool]:
        """The answer or its failure, and whether asking again is pointless."""
        try:
            async with (
                asyncio.timeout(self._settings.attempt_limit_s),
                self._client.stream("POST", self._settings.url, content=body, headers=headers) as response,
            ):
                answer = await self._read(response)
        except TimeoutError:
            return Failure(kind="timed_out", message=f"no answer within {self._settings.attempt_limit_s:g} s"), False
        except httpx.TransportError as error:
            return Failure(kind="unavailable", message=shorten(f"{type(error).__name__}: {error}")), False
        except httpx.HTTPError as error:
            return Failure(kind="not_a_number", message=shorten(f"{type(error).__name__}: {error}")), True
        if isinstance(answer, Failure) or response.is_success:
            return answer, True
        return _refusal(response.status_code, answer)

    async def _read(self, response: httpx.Response) -> bytes | Failure:
        bound = self._settings.max_body_bytes
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
        return self._rng.uniform(0.0, min(LONGEST_BACKOFF_S, self._settings.backoff_s * 2.0 ** (attempt - 1)))


def _refusal(status: int, body: bytes) -> tuple[Failure, bool]:
    message = shorten(f"status {status}: {body[:300].decode(errors='replace')}")
    if status in RETRIED_STATUSES or status >= 500:
        return Failure(kind="unavailable", message=message), False
    if 300 <= status < 400:
        message = f"status {status}: redirects are not followed; set `url` to where it leads"
    return Failure(kind="raised", message=message), True


def _request_body(samples: Sequence[RewardSample]) -> bytes:
    rows = [
        {
            "prompt": sample.prompt,
            "completion": sample.completion,
            "finish_reason": sample.finish_reason,
            "num_tokens": sample.num_tokens,
            "item": sample.item,
        }
        for sample in samples
    ]
    return json.dumps({"samples": rows}, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Arrays and numpy numbers of a data row as lists and numbers, anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _outcomes(body: bytes, *, num_samples: int) -> list[Outcome]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    rewards = answer.get("rewards") if isinstance(answer, dict) else None
    if isinstance(rewards, list) and len(rewards) == num_samples:
        return [outcome_of(reward) for reward in rewards]
    if isinstance(rewards, list):
        complaint = f"{len(rewards)} rewards for {num_samples} samples"
    else:
        complaint = f"no object with a list `rewards`, but {shorten(body[:200].decode(errors='replace'))!r}"
    return [Failure(kind="not_a_number", message=f"answered {complaint}")] * num_samples


def _header_value(name: str, value: str) -> str:
    if not value.startswith("env:"):
        return value
    variable = value.removeprefix("env:")
    if variable not in os.environ:
        raise ConfigError(
            f"header {name!r} is to be read from the environment variable {variable!r}, which the reward server lacks; "
            "set it there, or write the value itself"
        )
    return os.environ[variable]
