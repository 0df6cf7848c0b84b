"""A short job as events, for every observer's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.records import Invalid, Prompt, RolloutGroup
from rlhf_cluster.records.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    GroupDropped,
    JobEnded,
    JobStarted,
    Notice,
    Phase,
    RewardFailed,
    StepDone,
)


def make_group(
    number: int, *, texts: tuple[str, ...] = ("good film", "bad"), prompt: str | None = None
) -> RolloutGroup:
    lengths = np.array([max(len(text.split()), 1) for text in texts], dtype=np.int32)
    num_tokens = int(lengths.sum())
    return RolloutGroup(
        request_id=number,
        prompt=Prompt(
            prompt_id=f"{number}/0", text=prompt or f"prompt {number}", token_ids=np.array([1, 2], dtype=np.int32)
        ),
        worker_id="rollout-0",
        lengths=lengths,
        token_ids=np.arange(num_tokens, dtype=np.int32),
        logprobs=np.full(num_tokens, -1.0, dtype=np.float32),
        versions=np.arange(num_tokens, dtype=np.int32),
        finish_reasons=("stop",) * len(texts),
        texts=texts,
        rewards=np.linspace(1, 0, len(texts), dtype=np.float32),
        breakdown={"vader": np.linspace(1, 0, len(texts), dtype=np.float32)},
        advantages=np.linspace(-1, 1, num_tokens, dtype=np.float32),
    )


@pytest.fixture
def group() -> Callable[..., RolloutGroup]:
    return make_group


@pytest.fixture
def job_events(tmp_path: Path) -> list[Event]:
    """Three of three steps, one dropped group, one failed reward, held-out reward 0.1 -> 0.6."""
    job_dir = tmp_path / "job"
    failure = Invalid(completion=0, source="reward:vader", kind="timed_out", message="took 5 s")
    before = tuple(make_group(100 + i, texts=("dull", "dull")) for i in range(4))
    after = tuple(make_group(100 + i, texts=("\x1b[31mlovely", "fine")) for i in range(4))
    steps: list[Event] = [
        StepDone(
            time_s=100.0 + 10 * step,
            step=step,
            version=step,
            metrics={
                "reward/mean": 0.1 * step,
                "learner/kl": 0.001,
                "learner/loss": float("nan"),
                "rollout/completion_length_mean": 30.0,
                "rollout/tokens_per_s": 212.4,
                "driver/staleness_max": 0.0,
            },
            groups=(make_group(step), make_group(step + 10)),
        )
        for step in (1, 2, 3)
    ]
    return [
        JobStarted(time_s=100.0, step=0, job_name="reviews", job_dir=job_dir, num_steps=3, first_step=0),
        Phase(time_s=101.0, step=0, name="starting rollout workers"),
        Evaluated(time_s=102.0, step=0, metrics={"eval/reward_mean": 0.1}, groups=before),
        steps[0],
        GroupDropped(time_s=112.0, step=1, request_id=7, prompt_id="7/0", reason="all rewards equal"),
        RewardFailed(time_s=113.0, step=1, request_id=8, prompt_id="8/0", invalid=failure),
        RewardFailed(time_s=114.0, step=1, request_id=9, prompt_id="9/0", invalid=failure),
        Notice(time_s=115.0, step=1, level="warning", text="slow reward"),
        *steps[1:],
        Evaluated(time_s=131.0, step=3, metrics={"eval/reward_mean": 0.6}, groups=after),
        CheckpointSaved(time_s=132.0, step=3, path=job_dir / "checkpoints" / "step-000003"),
        JobEnded(
            time_s=133.0,
            step=3,
            outcome="succeeded",
            message="",
            job_dir=job_dir,
            checkpoint=job_dir / "checkpoints" / "step-000003",
        ),
    ]
