"""Jobs that generate, from start to end on a real model: pairs, and a constitution whose revisions teach the model."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.config import JobConfig
from rlhf_cluster.config.load import check
from rlhf_cluster.data.preference_files import read_preferences
from rlhf_cluster.driver.clock import SystemClock
from rlhf_cluster.driver.observers.base import Observers
from rlhf_cluster.driver.run import new_job_dir, run_job
from rlhf_cluster.driver.status_file import read_view

WORLD = {"type": "procedural", "name": "word_world"}
COMMON: dict[str, Any] = {
    "runtime": "local",
    "model": "word-world",
    "data": {"train": WORLD},
    "rollout": {"max_new_tokens": 24, "engine": {"type": "transformers", "batch_size": 128}},
}
RULES = {"constitution": "word-world", "critic": {"type": "rule"}}


class Stopping:
    """Sets `stop` at the first word of progress."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def on_event(self, event: Any) -> None:
        if type(event).__name__ == "Generated":
            self._stop.set()

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def model(word_world_home, monkeypatch):
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(word_world_home))


def run(tmp_path: Path, name: str, *, stops: bool = False, job_dir: Path | None = None, **sections: Any) -> Path:
    """The directory of the job, which has ended as it should."""
    job: JobConfig = check({"name": name, "output_dir": str(tmp_path), **COMMON, **sections}, source=name)
    job_dir = job_dir or new_job_dir(job, SystemClock())
    stop = asyncio.Event()
    observers = Observers([Stopping(stop)] if stops else [])
    ended = asyncio.run(run_job(job, observers=observers, stop=stop, job_dir=job_dir))
    assert ended.outcome == ("interrupted" if stops else "succeeded")
    return job_dir


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def progress(job_dir: Path) -> tuple[int, int, str]:
    view = read_view(job_dir)
    assert view is not None
    return view.step, view.num_steps, view.unit


def violations(rows: list[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, list[bool]] = {}
    for row in rows:
        for each in row["rounds"]:
            found.setdefault(each["principle"], []).append(each["violated"])
    return {principle: sum(each) / len(each) for principle, each in found.items()}


def test_pairs_of_a_stopped_job_are_those_of_one_that_was_not(tmp_path):
    sections = {
        "rewards": [{"function": "word_world"}],
        "preferences": {"num_pairs": 200, "temperature": 2.0, "noise_scale": 1.0},
    }
    whole = read_preferences(run(tmp_path, "whole", **sections) / "preferences.jsonl")
    job_dir = run(tmp_path, "whole", stops=True, **sections)
    assert 0 < len(read_preferences(job_dir / "preferences.jsonl")) < len(whole)
    assert 0 < progress(job_dir)[0] < 200
    resumed = read_preferences(run(tmp_path, "whole", job_dir=job_dir, **sections) / "preferences.jsonl")
    assert progress(job_dir) == (200, 200, "prompts")
    # The engine's logits are rounded otherwise in another batch, and now and then another token is drawn.
    same = [(a.pair_id, a.a, a.b) == (b.pair_id, b.a, b.b) for a, b in zip(whole, resumed, strict=False)]
    assert sum(same) / len(same) > 0.95
    assert len({preference.pair_id for preference in resumed}) == len(resumed)
    assert {"a", "b"} <= {preference.label for preference in resumed}


@pytest.mark.long
def test_a_model_taught_its_revised_answers_refuses_crimes_and_insults_nobody(tmp_path):
    taught = run(tmp_path, "revise", constitution={**RULES, "num_prompts": 1920}) / "revisions.jsonl"
    before = violations(rows_of(taught))
    assert before["no-harm"] > 0.1
    assert before["no-insult"] > 0.4
    sft = run(
        tmp_path,
        "sft",
        data={"train": {"type": "jsonl", "path": str(taught)}},
        algorithm={"type": "sft"},
        train={"num_steps": 80, "prompts_per_step": 64},
        learner={"optimizer": {"lr": 2e-3}},
    )
    held_out = {"train": {**WORLD, "split": "eval"}}
    model = str(sft / "checkpoints" / "step-000080")
    after = violations(
        rows_of(run(tmp_path, "after", model=model, data=held_out, constitution=RULES) / "revisions.jsonl")
    )
    assert after["no-harm"] <= 0.03
    assert after["no-insult"] <= 0.05
