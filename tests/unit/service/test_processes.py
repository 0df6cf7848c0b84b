"""Processes that one command starts and another one ends: exactly those, with all that came of them."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path

import psutil

from rlhf_cluster.service.processes import Started, last_lines, start

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print("child", child.pid, flush=True)
time.sleep(300)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("child", 0, flush=True)
time.sleep(300)
"""


def begin(program: str, log: Path) -> tuple[Started, int]:
    """The process and the id of its child, once it has told it."""
    started, _ = start([sys.executable, "-c", program], env=dict(os.environ), log=log)
    deadline_s = time.monotonic() + 30
    while not last_lines(log).startswith("child"):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return started, int(last_lines(log).split()[1])


def test_a_process_is_ended_with_its_children(tmp_path):
    started, child = begin(PARENT, tmp_path / "log")
    assert started.is_alive()
    assert started.end(grace_s=5)
    assert not started.is_alive()
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert not started.end(grace_s=5)


def test_one_that_does_not_end_when_asked_is_killed(tmp_path):
    started, _ = begin(STUBBORN, tmp_path / "log")
    assert started.end(grace_s=0.2)
    assert not started.is_alive()


def test_what_a_killed_process_has_left_behind_is_ended_too(tmp_path):
    started, child = begin(PARENT, tmp_path / "log")
    psutil.Process(started.process_id).kill()
    psutil.wait_procs([psutil.Process(started.process_id)], timeout=10)
    assert not started.is_alive()
    assert started.end(grace_s=5)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_another_process_that_got_the_same_id_is_left_alone(tmp_path):
    started, child = begin(PARENT, tmp_path / "log")
    earlier = dataclasses.replace(started, started_s=started.started_s - 3600)
    assert not earlier.is_alive()
    assert not earlier.end(grace_s=0.1)
    assert started.is_alive()
    assert psutil.pid_exists(child)
    started.end(grace_s=5)


def test_what_it_writes_is_for_its_owner_alone(tmp_path):
    started, _ = begin(PARENT, tmp_path / "log")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    started.end(grace_s=5)
