"""Ctrl-C as a person presses it: a checkpoint, the way to go on, exit code 130, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

BOUND_S = 120


def wait_for(what, *, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + BOUND_S
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.05)


def test_ctrl_c_leaves_a_checkpoint_and_no_process_of_the_cluster(tmp_path: Path, word_world_home: Path):
    settings = ("rollout.engine.type=transformers", "train.num_steps=100000", "evaluation.num_prompts=1")
    job = subprocess.Popen(
        [sys.executable, "-m", "rlhf_cluster.cli", "run", "word-world", "runtime=ray", *settings,
         f"output_dir={tmp_path / 'runs'}"],
        env={**os.environ, "RLHF_CLUSTER_HOME": str(word_world_home)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    journal = tmp_path / "runs" / "word-world-1" / "journal.jsonl"
    wait_for(lambda: journal.is_file() and "StepDone" in journal.read_text(), process=job)
    children = psutil.Process(job.pid).children(recursive=True)
    job.send_signal(signal.SIGINT)
    out, err = job.communicate(timeout=BOUND_S)
    assert job.returncode == 130, err
    assert "stopping after the current step" in err
    assert "Traceback" not in err
    assert f"rlhf resume {journal.parent}" in out
    assert list((journal.parent / "checkpoints").glob("step-*/model.safetensors"))
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
