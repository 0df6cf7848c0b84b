"""Rooms that only describe a job load none of the libraries that run one, seen in fresh interpreters."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "ray", "vllm", "transformers"}
ROOMS = (
    "cli.main",
    "client",
    "wire",
    "config",
    "records",
    "roles",
    "flow.buffer",
    "algorithms",
    "rewards.settings",
    "errors",
)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_that_describes_jobs_loads_nothing_heavy(room):
    program = f"import json, sys, rlhf_cluster.{room}; print(json.dumps(sorted(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not HEAVY & set(json.loads(child.stdout))
