"""A real job under fire: `rlhf run` in a process of its own on real Ray, its roles' processes by name, signals to them.

Everything is done as a person would do it: the command line, the status file, kill -9.

    with LiveJob("word-world", home=home, runs=runs, settings=UNDER_FIRE) as job:
        job.wait_for_step(3)
        killed = job.signal("rollout worker")
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

BOUND_S = 240
UNDER_FIRE = (
    "runtime=ray",
    "rollout.engine.type=transformers",
    "evaluation.num_prompts=1",
    "checkpoint.every_steps=5",
    'observers=["journal"]',
    "algorithm.kl_coef=0.01",
    "algorithm.keep_zero_variance=true",
    "recovery.unresponsive_s=4",
    "recovery.stall_s=6",
    "recovery.hedge_s=2",
    "recovery.learner_stall_s=20",
    "recovery.max_restarts=100",
)
"""The word world with every kind of role, and a supervision that is quick enough for a test."""


class LiveJob:
    def __init__(self, recipe: str, *, home: Path, runs: Path, settings: Sequence[str] = ()) -> None:
        """`home` is where the models are (`RLHF_CLUSTER_HOME`), `runs` a new output directory."""
        self._env = {**os.environ, "RLHF_CLUSTER_HOME": str(home)}
        self.job_dir = runs / f"{recipe}-1"
        self.process = self._start("run", recipe, *settings, f"output_dir={runs}")

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "rlhf_cluster.cli", *arguments],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> LiveJob:
        return self

    def __exit__(self, *_: object) -> None:
        """No process of this job survives a test that failed."""
        if self.process.poll() is None:
            for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                process.kill()
        self.process.wait()

    def call(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `rlhf` command on this job's directory."""
        return subprocess.run(
            [sys.executable, "-m", "rlhf_cluster.cli", verb, str(self.job_dir), *arguments],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )

    def resume(self) -> None:
        self.process.wait(timeout=BOUND_S)
        self.process = self._start("resume", str(self.job_dir), "-o", "json")

    def end(self) -> tuple[int, str]:
        """(exit code, everything it printed)."""
        out, _ = self.process.communicate(timeout=BOUND_S)
        return self.process.returncode, out

    def kill(self) -> None:
        """kill -9 of the driver, and the wait until none of its roles is left."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        roles = [process for process in children if "RoleHost" in process.name()]
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(roles, timeout=30)
        assert not alive, alive
        # Ray's own agents look at the process id of a raylet that nobody reaps in some containers.
        _, left = psutil.wait_procs(children, timeout=5)
        for process in left:
            process.kill()

    def events(self, kind: str) -> list[dict[str, Any]]:
        journal = self.job_dir / "journal.jsonl"
        lines = journal.read_text().splitlines() if journal.is_file() else []
        return [event for line in lines if line.endswith("}") and (event := json.loads(line))["event"] == kind]

    def step(self) -> int:
        return max([event["step"] for event in self.events("StepDone")], default=0)

    def wait(self, what: Callable[[], Any], name: str = "it") -> Any:
        deadline = time.monotonic() + BOUND_S
        while not (found := what()):
            assert self.process.poll() is None, self.process.communicate()[0][-4000:]
            assert time.monotonic() < deadline, f"{name} never came true"
            time.sleep(0.1)
        return found

    def wait_for_step(self, step: int) -> None:
        self.wait(lambda: self.step() >= step, f"step {step}")

    def members(self, role: str, state: str = "serving") -> dict[str, int]:
        """Process ids by worker id, as `rlhf status` knows them."""
        try:
            view = json.loads((self.job_dir / "status.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        found = [member for pool in view["pools"] for member in pool["members"]]
        return {
            m["worker_id"]: m["process_id"]
            for m in found
            if m["role"] == role and m["state"] == state and m["process_id"]
        }

    def signal(self, role: str, number: int = signal.SIGKILL) -> str:
        """Send it to one living process of the role; returns which worker. A test asserts what came of it."""
        members = self.wait(lambda: self.alive(role), f"a {role} to hit")
        worker_id, process_id = next(iter(members.items()))
        os.kill(process_id, number)
        return worker_id

    def alive(self, role: str) -> dict[str, int]:
        return {worker: pid for worker, pid in self.members(role).items() if psutil.pid_exists(pid)}

    def lost(self) -> list[str]:
        return [event["worker_id"] for event in self.events("WorkerChanged") if event["state"] == "lost"]

    def audit(self) -> dict[str, Any]:
        """What `rlhf audit` says; raises `AssertionError` unless the ledger is clean."""
        done = self.call("audit", "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)
