"""Pipelines without training: a model directory of a few bytes, and jobs that leave outputs made from their inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf_cluster.config.load import JOB_FILE
from rlhf_cluster.driver.checkpoint_manifest import seal

WEIGHTS = "model.safetensors"


def save_stand_in_model(directory: Path, content: str = "base") -> Path:
    """What is found as a model, and never loaded."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (("config.json", "{}"), ("tokenizer.json", "{}"), (WEIGHTS, content)):
        (directory / name).write_text(text)
    return directory


def stage_table(model: str, **overrides: Any) -> dict[str, Any]:
    """A stage that trains `model` for two steps; `overrides` are its other settings by dotted key, `__` for a dot."""
    settings = {"model": model, "runtime": "local", "rollout.engine": {"type": "scripted"}, "train.num_steps": 2}
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    return {"job": "word-world", "with": {**settings, **changed}}


def write_pipeline(file: Path, stages: Mapping[str, Any], **settings: Any) -> Path:
    """As JSON, which is YAML too; its `runs` are beside it."""
    tree = {"name": "tiny", "output_dir": str(file.parent / "runs"), "stages": stages, **settings}
    file.write_text(json.dumps(tree))
    return file


class FakeJobs:
    """A stage runner: the "weights" of a job are a hash of its steps, its seed and its model's weights.

    `leaves` are further files of every job directory. `at` is called between writes, and may raise as a kill would.
    """

    def __init__(self, *, leaves: Mapping[str, str] | None = None, at: Callable[[str], None] = lambda _: None) -> None:
        self.ran: list[str] = []
        """Names of job directories, in order."""
        self.exit_codes: dict[str, int] = {}
        """Stage -> how its next run ends, in place of success."""
        self._leaves = leaves or {}
        self._at = at

    def __call__(self, job_dir: Path) -> int:
        self.ran.append(job_dir.name)
        job = json.loads((job_dir / JOB_FILE).read_text())
        if code := self.exit_codes.pop(job_dir.name.rpartition("-")[0], 0):
            return code
        for name, text in self._leaves.items():
            (job_dir / name).write_text(text)
        self._at("half of the job")
        self._save(job_dir, job)
        self._at("the whole job")
        return 0

    def _save(self, job_dir: Path, job: Mapping[str, Any]) -> None:
        steps = job["train"]["num_steps"]
        checkpoint = job_dir / "checkpoints" / f"step-{steps:06d}"
        if not checkpoint.exists():
            source = (Path(job["model"]) / WEIGHTS).read_text()
            weights = hashlib.sha256(f"{steps} {job['seed']} {source}".encode()).hexdigest()
            save_stand_in_model(checkpoint, weights)
            seal(checkpoint, step=steps, epoch=1)
