"""From `rlhf scale` to the first rollout of the new worker, through the service: where the seconds go.

    python benchmarks/scale_live.py [--engine vllm] [--model smollm2-135m] [--repeat 3]

`rlhf up` with a Ray of its own, a real job, real workers. Accepted and answered are the times of the service's
timeline; the rest is read from the job's journal and ledger, as in joining.py. The job generates and learns meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from joining import first_group_s, since, states

from rlhf_cluster.client import Client
from rlhf_cluster.models import registry

PHASES = ("accepted", "obeyed", "actor", "engine", "weights", "first group")
SETTINGS = (
    "runtime=ray",
    "rollout.num_workers=1",
    "train.num_steps=100000",
    "train.max_staleness=2",
    "checkpoint.every_steps=100000",
    "evaluation.num_prompts=1",
    'observers=["journal"]',
)
BOUND_S = 600.0


@dataclass(frozen=True)
class ServiceJob:
    """As far as joining.py needs a job."""

    client: Client
    job_id: str
    job_dir: Path

    def events(self, kind: str) -> list[dict[str, Any]]:
        journal = self.job_dir / "journal.jsonl"
        lines = journal.read_text().splitlines() if journal.is_file() else []
        return [event for line in lines if line.endswith("}") and (event := json.loads(line))["event"] == kind]

    def wait(self, what: Callable[[], Any], name: str) -> Any:
        deadline_s = time.monotonic() + BOUND_S
        while not (found := what()):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{name} never came true: {self.client.job(self.job_id).message}")
            time.sleep(0.05)
        return found

    def told_s(self, kind: str, after_s: float) -> float:
        """When the service has first told that since `after_s`."""
        return self.wait(lambda: self._told_s(kind, after_s), kind)

    def _told_s(self, kind: str, after_s: float) -> float | None:
        found = [event.time_s for event in self.client.events(self.job_id, limit=50, kind=kind)]
        return min((time_s for time_s in found if time_s >= after_s), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="transformers", choices=("vllm", "transformers"))
    parser.add_argument("--model", default="word-world")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    registry.add("word-world", progress=lambda line: None)
    settings = [*SETTINGS, f"rollout.engine.type={arguments.engine}", f"model={arguments.model}"]
    with running_service() as (client, data_dir):
        job_id = json.loads(rlhf(client, "submit", "word-world", *settings, "-o", "json"))["job_id"]
        job = ServiceJob(client, job_id, data_dir / "jobs" / job_id)
        job.wait(lambda: len(job.events("StepDone")) >= 3, "the third step")
        splits = [scaled(job) for _ in range(arguments.repeat)]
        rlhf(client, "kill", job_id)
        job.wait(lambda: client.job(job_id).state == "cancelled", "its end")
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    print(f"{arguments.model}, {arguments.engine}: seconds, median of {arguments.repeat}; load {load:.1f} a core")
    print("".join(f"{phase:>13}" for phase in (*PHASES, "in all")))
    median = [statistics.median(split) for split in zip(*splits, strict=True)]
    total_s = statistics.median(sum(split) for split in splits)
    print("".join(f"{seconds:>13.2f}" for seconds in (*median, total_s)), flush=True)


@contextmanager
def running_service() -> Iterator[tuple[Client, Path]]:
    data_dir = Path(tempfile.mkdtemp(prefix="rlhf-bench-"))
    cli = [sys.executable, "-m", "rlhf_cluster.cli"]
    subprocess.run([*cli, "up", "--data-dir", data_dir], check=True, stdout=subprocess.DEVNULL)
    try:
        server = json.loads((data_dir / "server.json").read_text())
        with Client.connect(server["url"], server["token"]) as client:
            yield client, data_dir
    finally:
        subprocess.run([*cli, "down", "--data-dir", data_dir], check=True, stdout=subprocess.DEVNULL)


def rlhf(client: Client, *arguments: str) -> str:
    access = client.access
    env = {**os.environ, "RLHF_SERVER": access.url, "RLHF_TOKEN": access.token or ""}
    command = [sys.executable, "-m", "rlhf_cluster.cli", *arguments]
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def scaled(job: ServiceJob) -> list[float]:
    """One worker more, and fewer again."""
    size = list(states(job).values()).count("serving")
    known = {event["worker_id"] for event in job.events("WorkerChanged")}
    begun_s = time.time()
    rlhf(job.client, "scale", job.job_id, f"rollout={size + 1}")
    accepted_s, obeyed_s = job.told_s("Asked", begun_s), job.told_s("CommandAnswered", begun_s)
    joined = job.wait(lambda: {each for each in since(job, "serving") if each not in known}, "a joiner that serves")
    [worker_id] = (each for each in joined if each.startswith("rollout-"))
    serving_s = since(job, "serving")[worker_id]
    first_s = job.wait(lambda: first_group_s(job, worker_id, serving_s), "its first group")
    process_s, engine_s = since(job, "starting")[worker_id], since(job, "adopting")[worker_id]
    rlhf(job.client, "scale", job.job_id, f"rollout={size}")
    job.wait(lambda: list(states(job).values()).count("serving") == size, "the old size")
    # What was answered may be told after the actor has begun to start.
    marks = list(accumulate([begun_s, accepted_s, obeyed_s, process_s, engine_s, serving_s, first_s], max))
    return [after - before for before, after in pairwise(marks)]


if __name__ == "__main__":
    main()
