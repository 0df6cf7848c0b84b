"""A stage's process: its exit code comes back, Ctrl-C reaches it once, and a killed parent leaves none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rlhf_cluster.pipeline.child import run_in_child

BOUND_S = 60
STAND_IN = """
import os, signal, sys, time
place = sys.argv[-1]
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
print("begun", os.getpid(), *sys.argv[3:], flush=True)
while len(heard) < 1: time.sleep(0.02)
time.sleep(0.3)
sys.exit(129 + len(heard))
"""
PARENT = "import sys; from pathlib import Path; from rlhf_cluster.pipeline.child import run_in_child; "


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A "python" that runs the stand-in in place of `rlhf resume`, and the real one for everything else."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\ncase "$2" in rlhf_cluster.cli) exec {sys.executable} {tmp_path}/stand_in.py "$@";; '
        f'*) exec {sys.executable} "$@";; esac\n'
    )
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def parent(python, tmp_path):
    code = f"{PARENT}sys.executable = {python!r}; sys.exit(run_in_child(Path({str(tmp_path)!r})))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def begun(parent: subprocess.Popen[str]) -> int:
    """Process id of the child."""
    assert parent.stdout is not None
    words = parent.stdout.readline().split()
    assert words[0] == "begun"
    return int(words[1])


def test_ctrl_c_is_passed_on_once_and_the_exit_code_comes_back(parent):
    begun(parent)
    time.sleep(0.2)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(BOUND_S) == 130


def test_a_killed_parent_leaves_no_child(parent):
    child = psutil.Process(begun(parent))
    parent.kill()
    parent.wait()
    psutil.wait_procs([child], timeout=BOUND_S)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_directory_without_a_job_is_the_exit_code_of_rlhf_resume(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with open(os.devnull, "w") as nowhere:
        assert run_in_child(tmp_path / "nowhere", stdout=nowhere) == 3
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
