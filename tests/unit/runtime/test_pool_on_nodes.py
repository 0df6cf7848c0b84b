"""The pool on a Ray cluster of several nodes: a replica without room waits, says why, and is placed when a node joins.

In a process of its own, because Ray's test cluster starts its nodes with the environment of this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("ray") is None:
    pytest.skip("ray is not installed", allow_module_level=True)

STORY = """
import asyncio, os, shutil, sys, tempfile
sys.path.insert(0, {here!r})
os.environ.update(RAY_AUTH_MODE="disabled", RAY_prestart_worker_first_driver="0")
from rlhf_cluster.runtime import ray_environment
ray_environment.prepare(private=False)
import ray
from ray.cluster_utils import Cluster
from rlhf_cluster.runtime.ray import RayRuntime
from test_pool_on_ray import make_pool, until

# Short, because Ray puts unix sockets below it.
directory = tempfile.mkdtemp(prefix="rlhf-", dir="/tmp")
head = {{"num_cpus": 1, "include_dashboard": False, "temp_dir": directory}}
cluster = Cluster(initialize_head=True, head_node_args=head)
ray.init(address=cluster.address, log_to_driver=False)

async def story():
    events = []
    pool = make_pool(RayRuntime(None), events)
    await pool.start()
    pool.resize(2)
    await until(pool, lambda: events[-1].state == "pending")
    print(events[-1].reason)
    cluster.add_node(num_cpus=1)  # On the main thread: it sets a signal handler.
    await until(pool, lambda: len(pool.handles()) == 2)
    print("placed")
    await pool.aclose()

asyncio.run(asyncio.wait_for(story(), 90))
ray.shutdown()
cluster.shutdown()
shutil.rmtree(directory, ignore_errors=True)
"""


@pytest.mark.slow
def test_a_replica_without_room_is_placed_when_a_node_joins(tmp_path):
    story = STORY.format(here=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", story], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["wants 1 CPU; the cluster has 1 CPU in all and 0 CPUs free", "placed"]
