"""The driver's process ends without a word at every transition, and what is resumed equals what was never killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cluster.driver.ledger.ledger import read_history
from rlhf_cluster.driver.observers import journal
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.testing.live_job import UNDER_FIRE, LiveJob

SCRIPT = Path(__file__).with_name("killed_driver.py")
LOCAL = (
    "runtime=local",
    "rollout.engine.type=transformers",
    "train.num_steps=2",
    "evaluation.num_prompts=1",
    "checkpoint.every_steps=1",
    "checkpoint.keep=9",
    "algorithm.keep_zero_variance=true",
    'observers=["journal"]',
)


def losses(job_dir: Path) -> list[str]:
    steps = read_history(job_dir).steps
    return [steps[step].learned[0].loss for step in sorted(steps)]


def fingerprints(job_dir: Path) -> dict[int, str]:
    return read_history(job_dir).published


@pytest.mark.slow
def test_killed_at_every_transition_and_resumed_equals_never_killed_to_the_bit(word_world_home, tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "word-world", str(tmp_path), *LOCAL],
        env={**os.environ, "RLHF_CLUSTER_HOME": str(word_world_home)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [whole] = (tmp_path / "whole").glob("*")
    killed = sorted(tmp_path.glob("killed-*/*"))
    assert {path.parent.name.split("-")[2] for path in killed} == {"accept", "update", "publish", "adopt", "save"}
    for job_dir in killed:
        assert losses(job_dir) == losses(whole), job_dir.parent.name
        assert fingerprints(job_dir) == fingerprints(whole), job_dir.parent.name
        told = [entry["step"] for entry in journal.read(job_dir) if entry["event"] == "StepDone"]
        assert told == [1, 2], job_dir.parent.name
        report = audit(read_history(job_dir), max_staleness=0, num_steps=2)
        assert report.ok, [check for check in report.checks if not check.ok]


@pytest.mark.long
def test_kill_9_of_the_driver_on_ray_costs_nothing_that_was_accepted(word_world_home, tmp_path):
    with LiveJob(
        "word-world",
        home=word_world_home,
        runs=tmp_path,
        settings=[*UNDER_FIRE, "train.num_steps=30", "train.max_staleness=2"],
    ) as job:
        for step in (3, 8):
            job.wait_for_step(step)
            accepted = read_history(job.job_dir).step
            job.kill()
            assert job.call("status").stdout.count("is gone")
            job.resume()
            job.wait(lambda accepted=accepted: read_history(job.job_dir).step > accepted)
        code, out = job.end()
        assert code == 0, out
        assert job.audit()
        assert "OK: all" in job.call("audit").stdout
