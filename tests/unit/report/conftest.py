"""Directories as evaluations leave them, written by the code that writes them, of groups by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_cluster.driver.evaluate import SCORE
from rlhf_cluster.driver.evaluation_file import write_evaluation
from rlhf_cluster.driver.observers.journal import Journal
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.records.events import Evaluated
from rlhf_cluster.testing import make_group, make_job

Rewards = Sequence[tuple[str, Sequence[float]]]
"""(prompt, gold reward of each answer)."""


def answered(number: int, prompt: str, gold: Sequence[float], *, text: str = "an answer") -> RolloutGroup:
    """The proxy says twice the gold, and a little more with every answer."""
    group = make_group([3 + i for i in range(len(gold))], request_id=number)
    values = np.array(gold, np.float32)
    return replace(
        group,
        prompt=replace(group.prompt, text=prompt),
        rewards=values,
        breakdown={"gold": values, "proxy": 2 * values + np.arange(len(gold), dtype=np.float32) / 10},
        texts=(text,) * len(gold),
    )


def preferred(number: int, scores: tuple[float, float], labels: tuple[float, float] = (1, 0)) -> RolloutGroup:
    group = make_group([2, 2], request_id=number)
    return replace(
        group,
        prompt=replace(group.prompt, text=f"question {number}"),
        rewards=np.array(labels, np.float32),
        breakdown={SCORE: np.array(scores, np.float32)},
    )


@pytest.fixture
def evaluated(tmp_path: Path) -> Callable[..., Path]:
    """`evaluated("sft", [("a prompt", [0.0, 1.0])])` is the directory of an evaluation, beside all others."""

    def build(name: str, rewards: Rewards = (), *, folder: str = "", job: Sequence[str] = (), **event: Any) -> Path:
        job_dir = tmp_path / (folder or f"{name}-1")
        job_dir.mkdir(parents=True)
        groups = tuple(answered(number, *row) for number, row in enumerate(rewards))
        told = {"time_s": 1.0, "step": 7, "metrics": {}, "groups": groups, "fingerprint": "0f" * 16, **event}
        write_evaluation(job_dir, make_job([f"name={name}", *job]), Evaluated(**told))
        return job_dir

    return build


@pytest.fixture
def rewarded() -> Callable[..., RolloutGroup]:
    return answered


@pytest.fixture
def reward_model(evaluated: Callable[..., Path]) -> Path:
    """Right of 9 in 12 pairs, whose labels are one or two apart."""
    draw = np.random.default_rng(0)
    scored = tuple(
        preferred(number, (float(draw.normal() + (1 if number % 4 else -1)), 0.0), (1 + number % 2, 0))
        for number in range(12)
    )
    return evaluated("rm", groups=(), scored=scored)


@pytest.fixture
def journal_of() -> Callable[..., None]:
    def write(job_dir: Path, metrics: dict[str, Sequence[float]]) -> None:
        job_dir.mkdir(parents=True, exist_ok=True)
        journal = Journal(job_dir)
        for step, values in enumerate(zip(*metrics.values(), strict=True)):
            told = dict(zip(metrics, values, strict=True))
            journal.on_event(Evaluated(time_s=0.0, step=step, metrics=told, groups=()))
        journal.close()

    return write
