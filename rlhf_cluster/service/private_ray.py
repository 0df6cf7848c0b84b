"""A Ray head of this machine alone: its own directory, ports and token, beside any other Ray that may run here."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rlhf_cluster.errors import RlhfError
from rlhf_cluster.runtime.ray_environment import ALWAYS, PRIVATE
from rlhf_cluster.service.processes import Started, last_lines, start
from rlhf_cluster.service.ray_jobs import STOP_WAIT_S, RayAway, RayJobs, RayRefused

START_ATTEMPTS = 3
READY_S = 120.0
LOOK_EVERY_S = 0.25
GRACE_S = 45.0
"""Ray drains a node for up to 30 s before it ends its processes."""
REPORT_S = 10.0
"""For Ray to say that what it has stopped, or killed at last, has ended."""
NUM_CPUS = 64
"""Bookkeeping: on a laptop the roles of several small jobs take turns, and threads are what the cores really bear."""
PORTS = (
    "port",
    "dashboard-port",
    # Fixed numbers unless they are given: a second Ray of the machine would take no jobs, with no word of why.
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "ray-client-server-port",
    "object-manager-port",
    "node-manager-port",
    "runtime-env-agent-port",
)
METRIC_PORTS = ("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT")


class RayNotStarted(RlhfError):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateRay:
    process: Started
    url: str
    """Of its dashboard."""
    address: str
    """For `ray.init`."""
    temp_dir: str

    def end(self) -> bool:
        was_alive = self.process.end(grace_s=GRACE_S)
        shutil.rmtree(self.temp_dir, ignore_errors=True)
        return was_alive


def end_drivers(ray: PrivateRay, *, token: str, tell: Callable[[str], None]) -> None:
    """Have every driver end after its step, with a checkpoint, as long as there is time; Ray's own end is sudden."""
    jobs, asked = RayJobs(ray.url, token=token), set[str]()
    deadline_s = time.monotonic() + STOP_WAIT_S + REPORT_S
    with contextlib.closing(jobs), contextlib.suppress(RayAway):
        while (running := jobs.unfinished()) and time.monotonic() < deadline_s:
            for submission_id in set(running) - asked:
                tell(f"{submission_id} ends after its step, with a checkpoint")
                jobs.stop(submission_id)
            asked.update(running)
            time.sleep(LOOK_EVERY_S)


def start_private_ray(
    *,
    token: str,
    num_cpus: int | None,
    object_store_bytes: int,
    log: Path,
    note: Callable[[PrivateRay], None] = lambda ray: None,
) -> PrivateRay:
    """`note` gets what was launched, before anybody waits for it. Raises `RayNotStarted` with what Ray wrote last."""
    for _ in range(START_ATTEMPTS):
        # A port may be taken between being found free and being used: another attempt has others.
        ray = _launch(token=token, num_cpus=num_cpus, object_store_bytes=object_store_bytes, log=log)
        note(ray)
        if _answers(ray, token=token):
            return ray
        ray.end()
    raise RayNotStarted(f"Ray did not start in {START_ATTEMPTS} attempts; {log} ends with:\n{last_lines(log)}")


def _launch(*, token: str, num_cpus: int | None, object_store_bytes: int, log: Path) -> PrivateRay:
    numbers = free_ports(len(PORTS) + len(METRIC_PORTS))
    ports = dict(zip(PORTS, numbers, strict=False))
    # Short, because Ray puts unix sockets below it and their paths end at 107 characters.
    temp_dir = tempfile.mkdtemp(prefix="rlhf-", dir="/tmp")
    arguments = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={temp_dir}"),
        *(f"--{name}={number}" for name, number in ports.items()),
        *("--min-worker-port=0", "--max-worker-port=0"),  # any free ones
        *(f"--num-cpus={num_cpus or max(NUM_CPUS, os.cpu_count() or 1)}", "--disable-usage-stats"),
        *(f"--object-store-memory={object_store_bytes}", "--include-log-monitor=false"),
    ]
    env = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH")}
    env = {**ALWAYS, **PRIVATE, **env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    env |= {name: str(number) for name, number in zip(METRIC_PORTS, numbers[len(PORTS) :], strict=True)}
    process, _ = start(arguments, env=env, log=log)
    return PrivateRay(
        process=process,
        url=f"http://127.0.0.1:{ports['dashboard-port']}",
        address=f"127.0.0.1:{ports['port']}",
        temp_dir=temp_dir,
    )


def _answers(ray: PrivateRay, *, token: str) -> bool:
    """Once its dashboard knows a living node; False when its process ends, or in `READY_S` nothing came."""
    jobs, deadline_s = RayJobs(ray.url, token=token), time.monotonic() + READY_S
    with contextlib.closing(jobs):
        while ray.process.is_alive() and time.monotonic() < deadline_s:
            with contextlib.suppress(RayAway, RayRefused, KeyError, TypeError):
                nodes = jobs.get("/api/v0/nodes")["data"]["result"]["result"]
                if any(node["state"] == "ALIVE" for node in nodes):
                    return True
            time.sleep(LOOK_EVERY_S)
    return False


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]
