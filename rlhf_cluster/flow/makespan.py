"""The shortest time in which a schedule can run without any overhead: the yardstick of the benchmarks.

Events alone, over the real `Buffer`, so that admission and order are those of a job: prompts go out the moment there is
room and a free slot, the learner takes the oldest batch the moment it is complete and the learner is free, and every
worker serves a version the moment it is trained, in the middle of its groups. Publishing, adopting, scoring and
messages cost nothing. Slots of different workers are alike, and a group takes as long however full its worker is.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from rlhf_cluster.flow.buffer import Buffer
from rlhf_cluster.records import Prompt, RolloutGroup

_EMPTY = np.zeros(0, dtype=np.int32)
_PROMPT = Prompt(prompt_id="0/0", text="", token_ids=_EMPTY)
_TRAINED = -1
"""Stands in the heap where a group's number would; at the same moment it comes first, as its slots serve the rest."""


def makespan_s(
    durations_s: Sequence[float],
    *,
    num_workers: int,
    slots: int,
    prompts_per_step: int,
    train_s: float,
    num_steps: int,
    max_staleness: int,
) -> float:
    """Seconds from the first dispatch to the end of the last step.

    `durations_s` holds the seconds of each group in the order of the stream, at least `prompts_per_step * num_steps`
    of them; each worker holds `slots` groups at once; `max_staleness` 0 is synchronous. Raises `ValueError` for a
    schedule that could not run.
    """
    num_groups = prompts_per_step * num_steps
    if len(durations_s) < num_groups or min(num_workers, slots, num_steps) < 1:
        raise ValueError(
            f"{num_steps} steps of {prompts_per_step} prompts need {num_groups} durations, there are "
            f"{len(durations_s)}; num_workers = {num_workers}, slots = {slots} and num_steps must be at least 1"
        )
    buffer = Buffer(prompts_per_step=prompts_per_step, max_staleness=max_staleness, num_steps=num_steps)
    events: list[tuple[float, int]] = []
    now_s, version, next_id, num_free = 0.0, 0, 0, num_workers * slots
    while True:
        if version == buffer.next_step and buffer.take() is not None:
            heapq.heappush(events, (now_s + train_s, _TRAINED))
        for _ in range(min(num_free, buffer.capacity(version))):
            buffer.dispatch(next_id, version=version)
            heapq.heappush(events, (now_s + durations_s[next_id], next_id))
            next_id += 1
            num_free -= 1
        if not events:
            return now_s
        now_s, event = heapq.heappop(events)
        if event == _TRAINED:
            version += 1
        else:
            buffer.complete(_group(event))
            num_free += 1


def _group(request_id: int) -> RolloutGroup:
    return RolloutGroup(
        request_id=request_id,
        prompt=_PROMPT,
        worker_id="",
        lengths=_EMPTY,
        token_ids=_EMPTY,
        logprobs=_EMPTY,
        versions=_EMPTY,
        finish_reasons=(),
    )
