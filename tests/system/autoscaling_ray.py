"""A Ray head of one machine with Ray's real autoscaler, which starts and ends nodes as processes of this machine.

Not for production: it is how Ray tests its own autoscaler. Nothing of it is shared with another Ray of the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_cluster.runtime.ray_environment import ALWAYS, PRIVATE
from rlhf_cluster.service.private_ray import METRIC_PORTS, PORTS, free_ports
from rlhf_cluster.service.processes import last_lines, start
from rlhf_cluster.service.ray_jobs import RayAway, RayJobs

HEAD_NODE = "f" * 51 + "00000"
"""The provider numbers its nodes from here."""
TOKEN = "a" * 64
STORE_BYTES = 100_000_000
IDLE_MINUTES = 0.1
MAX_ROLLOUT_NODES = 3
READY_S = 120.0
GRACE_S = 45.0


@dataclass(frozen=True)
class AutoscalingRay:
    url: str
    """Of its dashboard."""
    address: str
    log: Path

    def rollout_nodes(self) -> int:
        """Nodes for rollout workers that are alive now."""
        with contextlib.closing(RayJobs(self.url, token=TOKEN)) as ray:
            nodes = ray.get("/api/v0/nodes")["data"]["result"]["result"]
        return sum(node["state"] == "ALIVE" and "rollout" in (node["resources_total"] or {}) for node in nodes)


@contextlib.contextmanager
def autoscaling_ray(env: Mapping[str, str]) -> Iterator[AutoscalingRay]:
    """`env` is what jobs find in their environment besides ours."""
    # Short, because Ray puts unix sockets below it and their paths end at 107 characters.
    temp_dir = Path(tempfile.mkdtemp(prefix="rlhf-", dir="/tmp"))
    numbers = free_ports(len(PORTS) + len(METRIC_PORTS))
    ports = dict(zip(PORTS, numbers, strict=False))
    address = f"127.0.0.1:{ports['port']}"
    config, log = temp_dir / "autoscaler.json", temp_dir / "head.log"
    config.write_text(json.dumps(_autoscaler(address)))
    arguments = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={temp_dir}"),
        *(f"--{name}={number}" for name, number in ports.items()),
        *("--min-worker-port=0", "--max-worker-port=0", f"--autoscaling-config={config}"),
        *("--num-cpus=8", "--disable-usage-stats", f"--object-store-memory={STORE_BYTES}"),
    ]
    process, _ = start(arguments, env={**_environment(numbers[len(PORTS) :]), **env}, log=log)
    ray = AutoscalingRay(url=f"http://127.0.0.1:{ports['dashboard-port']}", address=address, log=log)
    try:
        _wait_until_it_answers(ray)
        yield ray
    finally:
        process.end(grace_s=GRACE_S)
        shutil.rmtree(temp_dir, ignore_errors=True)


def _autoscaler(address: str) -> dict[str, Any]:
    node = {"CPU": 1, "rollout": 1, "object_store_memory": STORE_BYTES}
    commands = ("setup", "initialization", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "fake_multinode",
        "max_workers": MAX_ROLLOUT_NODES,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "gcs_address": address,
            "head_node_id": HEAD_NODE,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 8}, "node_config": {}, "max_workers": 0},
            "rollout": {"resources": node, "node_config": {}, "min_workers": 0, "max_workers": MAX_ROLLOUT_NODES},
        },
        "head_node_type": "ray.head.default",
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "auth": {},
        **{f"{name}_commands": [] for name in commands},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "docker": {},
    }


def _environment(metric_ports: list[int]) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH")}
    env = {**ALWAYS, **PRIVATE, **env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    env |= {name: str(number) for name, number in zip(METRIC_PORTS, metric_ports, strict=True)}
    return env | {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_NODE,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE,
    }


def _wait_until_it_answers(ray: AutoscalingRay) -> None:
    deadline_s = time.monotonic() + READY_S
    with contextlib.closing(RayJobs(ray.url, token=TOKEN)) as jobs:
        while True:
            try:
                if jobs.get("/api/v0/nodes")["data"]["result"]["result"]:
                    return
            except RayAway as error:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{error}; its log ends with\n{last_lines(ray.log)}") from error
            time.sleep(0.25)
