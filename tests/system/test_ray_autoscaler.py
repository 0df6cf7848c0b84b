"""A job on a cluster with Ray's real autoscaler: a rollout worker that needs a node gets one, and gives it back."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet
import pytest

from rlhf_cluster.service.private_ray import free_ports
from rlhf_cluster.service.processes import last_lines, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
BOUND_S = 240
LOOK_EVERY_S = 0.2
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


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


autoscaling = _load("autoscaling_ray")


@dataclass(frozen=True)
class Service:
    url: str
    data_dir: Path
    ray: Any

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


def until(is_there: Callable[[], bool], *, what: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + BOUND_S
    while not is_there():
        assert time.monotonic() < deadline_s, what()
        time.sleep(LOOK_EVERY_S)


@pytest.fixture(scope="module")
def service(word_world_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data_dir = tmp_path_factory.mktemp("autoscaler")
    [port] = free_ports(1)
    url, home = f"http://127.0.0.1:{port}", {"RLHF_CLUSTER_HOME": str(word_world_home)}
    with autoscaling.autoscaling_ray(home) as ray:
        arguments = [sys.executable, "-m", "rlhf_cluster.cli", "serve", "--data-dir", str(data_dir)]
        arguments += ["--port", str(port), "--ray-address", ray.url]
        log = data_dir / "server.log"
        env = {**os.environ, **home, "RAY_AUTH_TOKEN": autoscaling.TOKEN}
        server, _ = start(arguments, env=env, log=log)
        try:
            until(lambda: _is_ready(url), what=lambda: last_lines(log))
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

    until(lambda: service.ray.rollout_nodes() == 1, what=lambda: service.rlhf("show", job_id))
    until(lambda: service.trained_on(job_id) == {"rollout-0"}, what=lambda: service.rlhf("show", job_id))

    service.rlhf("scale", job_id, "rollout=2")
    reasons: set[str] = set()
    until(
        lambda: reasons.add((pool := service.rollout(job_id))["pending_reason"]) or pool["num_serving"] == 2,
        what=lambda: service.rollout(job_id),
    )
    # A node that comes within three seconds is not worth a reason.
    assert all("wants 1 CPU and 1 rollout" in reason for reason in reasons - {""}), reasons
    assert service.ray.rollout_nodes() == 2
    until(lambda: "rollout-1" in service.trained_on(job_id), what=lambda: service.rollout(job_id))

    service.rlhf("scale", job_id, "rollout=1")
    until(lambda: service.ray.rollout_nodes() == 1, what=lambda: service.rollout(job_id))

    service.rlhf("scale", job_id, f"rollout={autoscaling.MAX_ROLLOUT_NODES + 1}")
    full = "its autoscaler can add none: no kind of node has so many, or it may start no more of them"
    until(lambda: full in service.rollout(job_id)["pending_reason"], what=lambda: service.rollout(job_id))
    reason = service.rollout(job_id)["pending_reason"]
    assert reason.startswith("waiting for a node: wants 1 CPU and 1 rollout; the cluster has "), reason
    assert service.ray.rollout_nodes() == autoscaling.MAX_ROLLOUT_NODES, reason

    service.rlhf("cancel", job_id)
    until(lambda: service.rlhf("show", job_id)["state"] == "cancelled", what=lambda: service.rlhf("show", job_id))
    until(lambda: service.ray.rollout_nodes() == 0, what=lambda: service.rlhf("cluster"))
