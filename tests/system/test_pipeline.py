"""A pipeline of two real jobs by command line: killed in the middle of the first, it goes on and ends whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rlhf_cluster.driver.observers import journal
from rlhf_cluster.testing.pipelines import write_pipeline

BOUND_S = 200
TINY = {
    "runtime": "local",
    "rollout": {"engine": {"type": "transformers"}, "max_new_tokens": 6},
    "train": {"num_steps": 4, "prompts_per_step": 2, "completions_per_prompt": 2},
    "algorithm.keep_zero_variance": True,
    "evaluation": {"num_prompts": 1, "completions_per_prompt": 1},
    "observers": ["journal"],
}
STAGES = {
    "tuned": {"job": "word-world", "with": {**TINY, "model": "{warm.model}"}},
    "warm": {"job": "word-world", "with": TINY},
}


def steps(job_dir: Path) -> list[int]:
    if not (job_dir / "journal.jsonl").is_file():
        return []
    return [entry["step"] for entry in journal.read(job_dir) if entry["event"] == "StepDone"]


@pytest.mark.slow
def test_a_pipeline_that_is_killed_goes_on_and_is_then_unchanged(tmp_path: Path, word_world_home: Path):
    file = write_pipeline(tmp_path / "tiny.yaml", STAGES)
    home = tmp_path / "runs" / "tiny"
    env = {**os.environ, "RLHF_CLUSTER_HOME": str(word_world_home)}
    command = [sys.executable, "-m", "rlhf_cluster.cli", "pipeline"]

    def rlhf(verb: str, *arguments: str) -> Any:
        done = subprocess.run(
            [*command, verb, *arguments, "-o", "json"],
            env=env, capture_output=True, text=True, timeout=BOUND_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    killed = subprocess.Popen([*command, "run", str(file)], env=env)
    deadline = time.monotonic() + BOUND_S
    while not steps(home / "warm-1"):
        assert killed.poll() is None
        assert time.monotonic() < deadline, "no step was done"
        time.sleep(0.02)
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert [row["act"] for row in rlhf("plan", str(file))] == ["resume", "run"]

    made = {row["stage"]: row for row in rlhf("run", str(file))}
    assert sorted(path.name for path in home.glob("*-*")) == ["tuned-1", "warm-1"]
    assert steps(home / "warm-1") == steps(home / "tuned-1") == [1, 2, 3, 4]
    tuned = json.loads((home / "tuned-1" / "job.json").read_text())
    assert tuned["model"] == made["warm"]["outputs"]["model"]
    assert [row["act"] for row in rlhf("plan", str(file))] == ["keep", "keep"]
    lineage = rlhf("lineage", made["tuned"]["outputs"]["model"])
    assert [ancestor["stage"] for ancestor in lineage["ancestors"]] == ["warm", "tuned"]
