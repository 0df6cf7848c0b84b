"""The ledger of a small synchronous job in which nothing goes wrong, for tests of what reads ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_cluster.records.ledger import (
    Accepted,
    Completed,
    Dispatched,
    Dropped,
    Entry,
    Learned,
    Lost,
    Opened,
    Proved,
    Published,
    Saved,
)

WORKER = "rollout-0"
STAMP: dict[str, Any] = {"epoch": 1, "time_s": 0.0}


def ledger_story(*, num_steps: int = 3, prompts_per_step: int = 2) -> list[Entry]:
    """In every step one prompt is lost and goes out again, and one more is dropped."""
    return [Opened(step=0, **STAMP), *(entry for step in range(num_steps) for entry in _step(step, prompts_per_step))]


def _step(step: int, prompts_per_step: int) -> Iterator[Entry]:
    """Ids of a step are consecutive; its last one is dropped."""
    first = step * (prompts_per_step + 1)
    ids = tuple(range(first, first + prompts_per_step + 1))
    yield Published(version=step, fingerprint=f"print-{step}", author=(1, 0), **STAMP)
    yield Proved(worker_id=WORKER, version=step, fingerprint=f"print-{step}", **STAMP)
    yield Dispatched(request_ids=ids, worker_id=WORKER, version=step, **STAMP)
    yield Lost(request_ids=ids[:1], worker_id=WORKER, reason="drained", **STAMP)
    yield Dispatched(request_ids=ids[:1], worker_id=WORKER, version=step, **STAMP)
    for request_id in ids[:-1]:
        yield completed(request_id, version=step)
    yield Dropped(request_id=ids[-1], prompt_id=f"{ids[-1]}/0", reason="all rewards failed", **STAMP)
    yield Accepted(step=step, request_ids=ids[:-1], staleness=0, digest=f"digest-{step}", **STAMP)
    yield Learned(step=step, version=step + 1, loss=float(step).hex(), **STAMP)
    yield Saved(step=step + 1, name=f"step-{step + 1:06d}", **STAMP)


def completed(request_id: int, *, version: int, worker_id: str = WORKER) -> Completed:
    """Four completions of 32 tokens in all."""
    return Completed(
        request_id=request_id,
        prompt_id=f"{request_id}/0",
        workers=(worker_id,),
        versions=(version,),
        num_completions=4,
        num_tokens=32,
        place=(1, 100 * request_id),
        **STAMP,
    )
