"""A reward asked of a web service: POST `{"samples": [...]}`, answered by `{"rewards": [...]}` of the same length."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Sequence
from typing import Any

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.asking import Asking
from rlhf_cluster.rewards.sample import Failure, Outcome, RewardSample, failure_of, outcome_of, shorten
from rlhf_cluster.rewards.settings import HttpReward


class RemoteReward:
    """Belongs to one event loop. `rng` draws the jitter."""

    def __init__(self, settings: HttpReward, *, rng: random.Random | None = None) -> None:
        self._settings = settings
        headers = {name: _header_value(name, value) for name, value in settings.headers.items()}
        self._asking = Asking(settings, headers=headers, rng=rng)

    async def score(self, samples: Sequence[RewardSample]) -> list[Outcome]:
        size = self._settings.batch_size
        batches = [samples[first : first + size] for first in range(0, len(samples), size)]
        return [outcome for batch in await asyncio.gather(*map(self._score_batch, batches)) for outcome in batch]

    async def close(self) -> None:
        await self._asking.close()

    async def _score_batch(self, samples: Sequence[RewardSample]) -> list[Outcome]:
        try:
            body = _request_body(samples)
        except (TypeError, ValueError, RecursionError) as error:  # a data row that JSON cannot hold
            return [failure_of(error)] * len(samples)
        answer = await self._asking.ask(self._settings.url, body)
        if isinstance(answer, Failure):
            return [answer] * len(samples)
        return _outcomes(answer, num_samples=len(samples))


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
