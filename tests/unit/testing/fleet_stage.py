"""Requests, and the shortest ways to ask simulated roles something."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from rlhf_cluster.records import Prompt, RolloutGroup, RolloutRequest, Sampling, WeightHandle
from rlhf_cluster.testing.fleet import SimulatedRank


def request(number: int = 0, *, seed: int | None = None, begun: RolloutGroup | None = None, num: int = 2):
    return RolloutRequest(
        request_id=number,
        prompt=Prompt(prompt_id=f"{number}/0", text="prompt", token_ids=np.array([2, 3], np.int32)),
        num_completions=num,
        sampling=Sampling(max_new_tokens=10),
        seed=number if seed is None else seed,
        begun=begun,
    )


async def handle_of(version: int, **rank: Any) -> WeightHandle:
    learner = SimulatedRank(update_s=0.0, **rank)
    learner.version = version
    handle = await learner.publish()
    assert handle is not None
    return handle


async def groups_of(worker: Any, *requests: RolloutRequest) -> list[RolloutGroup]:
    return [group async for message in worker.run(requests) for group in message]


def now_s() -> float:
    return asyncio.get_running_loop().time()


def columns(group: RolloutGroup) -> tuple[list, ...]:
    return tuple(c.tolist() for c in (group.lengths, group.token_ids, group.logprobs, group.versions))
