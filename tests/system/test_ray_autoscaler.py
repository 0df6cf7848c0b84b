"""A job on a cluster with Ray's real autoscaler: a rollout worker that needs a node gets one, and gives it back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet
import pytest

from rlhf_cluster.service.private_ray import free_ports
from rlhf_cluster.service.processes import start

from .autoscaling_ray import MAX_ROLLOUT_NODES, TOKEN, AutoscalingRay, autoscaling_ray
from .up_service import BOUND_S, wait

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
GRACE_S = 20
JOB = (
    "runtime=ray",
    "rollout.engine.type=transformers",
    "rollout.num_workers=1",
    "rollout.resources={rollout=1}",
    "train.num_steps=100000",
    "train.prompts_per_step=8",
    "algorithm.keep_zero_variance=true",
    "evaluation.num_prompts=1",
    "checkpoint.every_steps=50",
    'observers=["journal", "samples"]',
)


@dataclass(frozen=True)
class Service:
    url: str
    data_dir: Path
    ray: AutoscalingRay

    def rlhf(self, *arguments: str) -> Any:
        token = (self.data_dir / "admin.token").read_text().strip()
        done = subprocess.run(
            [sys.executable, "-m", "rlhf_cluster.cli", *arguments, "-o", "json"],
            env={**os.environ, "RLHF_SERVER": self.url, "RLHF_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def rollout(self, job_id: str) -> dict[str, Any]:
        """The pool of rollout workers."""
        token = (self.data_dir / "admin.token").read_text().strip()
        answer = httpx.get(
            f"{self.url}/api/v1/jobs/{job_id}/pools/rollout",
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=30,
        )
        return answer.json()

    def trained_on(self, job_id: str) -> set[str]:
        """Workers whose rollouts were in a batch."""
        files = (self.data_dir / "jobs" / job_id / "samples").glob("step-*.parquet")
        return {worker for file in files for worker in pyarrow.parquet.read_table(file)["worker_id"].to_pylist()}


@pytest.fixture(scope="module")
def service(word_world_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data_dir = tmp_path_factory.mktemp("autoscaler")
    [port] = free_ports(1)
    url, home = f"http://127.0.0.1:{port}", {"RLHF_CLUSTER_HOME": str(word_world_home)}
    with autoscaling_ray(home) as ray:
        arguments = [sys.executable, "-m", "rlhf_cluster.cli", "serve", "--data-dir", str(data_dir)]
        arguments += ["--port", str(port), "--ray-address", ray.url]
        log = data_dir / "server.log"
        env = {**os.environ, **home, "RAY_AUTH_TOKEN": TOKEN}
        server, _ = start(arguments, env=env, log=log)
        try:
            wait(lambda: _is_ready(url), f"a server that {log} tells of")
            yield Service(url=url, data_dir=data_dir, ray=ray)
        finally:
            server.end(grace_s=GRACE_S)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_worker_that_needs_a_node_gets_one_and_gives_it_back(service):
    assert service.ray.rollout_nodes() == 0
    job_id = service.rlhf("submit", "word-world", *JOB)["job_id"]

    wait(lambda: service.ray.rollout_nodes() == 1, "a node for the first worker")
    wait(lambda: service.trained_on(job_id) == {"rollout-0"}, "training on the first worker's rollouts")

    service.rlhf("scale", job_id, "rollout=2")
    reasons: set[str] = set()

    def is_served_by_two() -> bool:
        pool = service.rollout(job_id)
        reasons.add(pool["pending_reason"])
        return pool["num_serving"] == 2

    wait(is_served_by_two, "a second worker")
    # A node that comes within three seconds is not worth a reason.
    assert all("wants 1 CPU and 1 rollout" in reason for reason in reasons - {""}), reasons
    assert service.ray.rollout_nodes() == 2
    wait(lambda: "rollout-1" in service.trained_on(job_id), "training on the second worker's rollouts")

    service.rlhf("scale", job_id, "rollout=1")
    wait(lambda: service.ray.rollout_nodes() == 1, "the second node given back")

    service.rlhf("scale", job_id, f"rollout={MAX_ROLLOUT_NODES + 1}")
    full = "its autoscaler can add none: no kind of node has so many, or it may start no more of them"
    wait(lambda: full in service.rollout(job_id)["pending_reason"], "the limit told")
    reason = service.rollout(job_id)["pending_reason"]
    assert reason.startswith("waiting for a node: wants 1 CPU and 1 rollout; the cluster has "), reason
    assert service.ray.rollout_nodes() == MAX_ROLLOUT_NODES, reason

    service.rlhf("cancel", job_id)
    wait(lambda: service.rlhf("show", job_id)["state"] == "cancelled", "the end of the job")
    wait(lambda: service.ray.rollout_nodes() == 0, "all nodes given back")
