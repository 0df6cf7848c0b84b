"""The driver's process ends without a word at every transition, and what is resumed equals what was never killed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_cluster.driver.checkpoints import by_step, read_state
from rlhf_cluster.driver.ledger.ledger import read_history
from rlhf_cluster.driver.observers import journal
from rlhf_cluster.driver.replay import replay
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
PPO = (
    "algorithm={type='ppo', kl_coef=0.2, kl_target=0.5, kl_horizon=20, num_epochs=2, num_minibatches=2}",
    "learner.critic.lr=2e-3",
    "rollout.max_new_tokens=8",
    "train.prompts_per_step=3",
    'observers=["journal"]',
)
DPO = """
name = "dpo"
model = "word-world"
runtime = "local"
observers = ["journal"]
[data.train]
type = "jsonl"
path = "{pairs}"
[algorithm]
type = "dpo"
[reference]
precision = "fp32"
[learner]
precision = "fp32"
[train]
num_steps = 3
prompts_per_step = 2
"""


def losses(job_dir: Path) -> list[str]:
    steps = read_history(job_dir).steps
    return [steps[step].learned[0].loss for step in sorted(steps)]


def digests(job_dir: Path) -> list[str]:
    """Of the batches, credit and all."""
    steps = read_history(job_dir).steps
    return [steps[step].accepted.digest for step in sorted(steps)]


def coefficients(job_dir: Path) -> list[float]:
    """`kl_coef` for the batch after each checkpoint."""
    return [read_state(path)["algorithm"]["kl_coef"] for path in by_step(job_dir / "checkpoints").values()]


def drops(job_dir: Path) -> set[str]:
    return {life.reason for life in read_history(job_dir).lives.values() if life.reason}


def fingerprints(job_dir: Path) -> dict[int, str]:
    return read_history(job_dir).published


def run_and_kill(job: str, runs: Path, *settings: str, home: Path, first: int = 1) -> tuple[Path, list[Path]]:
    """The directory of the job that was never killed, and of those that were at a transition from the `first` on."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), job, str(runs), str(first), *settings],
        env={**os.environ, "RLHF_CLUSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [whole] = (runs / "whole").glob("*")
    return whole, sorted(runs.glob("killed-*/*"))


def transitions(killed: list[Path]) -> set[str]:
    return {path.parent.name.split("-")[2] for path in killed}


def assert_equal(job_dir: Path, whole: Path, *, num_steps: int) -> None:
    name = job_dir.parent.name
    assert losses(job_dir) == losses(whole), name
    assert digests(job_dir) == digests(whole), name
    assert fingerprints(job_dir) == fingerprints(whole), name
    told = [entry["step"] for entry in journal.read(job_dir) if entry["event"] == "StepDone"]
    assert told == list(range(1, num_steps + 1)), name
    report = audit(read_history(job_dir), max_staleness=0, num_steps=num_steps)
    assert report.ok, (name, [check for check in report.checks if not check.ok])


@pytest.mark.slow
def test_killed_at_every_transition_and_resumed_equals_never_killed_to_the_bit(word_world_home, tmp_path):
    whole, killed = run_and_kill("word-world", tmp_path, *LOCAL, home=word_world_home)
    assert transitions(killed) == {"accept", "update", "publish", "adopt", "save"}
    for job_dir in killed:
        assert_equal(job_dir, whole, num_steps=2)


@pytest.mark.slow
def test_pairs_in_their_second_epoch_have_the_reference_of_their_first_whoever_drives(word_world_home, tmp_path):
    rows = [{"prompt": f"a story {n}", "chosen": " good" * (1 + n), "rejected": " bad" * (3 - n)} for n in range(3)]
    tie = {"prompt": "a tie", "chosen": " good", "rejected": " fine", "tie": True}
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in [*rows, tie]))
    job = tmp_path / "dpo.toml"
    job.write_text(DPO.format(pairs=pairs))
    whole, killed = run_and_kill(str(job), tmp_path, home=word_world_home, first=4)
    assert transitions(killed) == {"accept", "update", "publish"}
    for job_dir in killed:
        assert_equal(job_dir, whole, num_steps=3)
    assert read_history(whole).published == {}, "nothing is generated, so no weights leave the learner"
    assert drops(whole) == {"zero_variance"}


@pytest.mark.long
def test_a_critic_and_a_moving_coefficient_go_on_where_they_were(word_world_home, tmp_path, monkeypatch):
    whole, killed = run_and_kill("word-world", tmp_path, *LOCAL[:-2], *PPO, home=word_world_home, first=6)
    assert transitions(killed) == {"accept", "update", "publish", "adopt", "save"}
    for job_dir in killed:
        assert_equal(job_dir, whole, num_steps=2)
        # One that was killed while it wrote its first checkpoint has only the last.
        assert coefficients(job_dir) == coefficients(whole)[-len(coefficients(job_dir)) :]
    first, second = coefficients(whole)
    assert first != 0.2
    assert second != first
    monkeypatch.setenv("RLHF_CLUSTER_HOME", str(word_world_home))
    replayed = asyncio.run(replay(whole, step=1, tell=print))
    assert [step.is_equal for step in replayed] == [True]


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
