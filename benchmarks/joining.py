"""How long it takes until a rollout worker that joins, or replaces one that was killed, brings its first groups.

    python benchmarks/joining.py [--engine vllm] [--repeat 3]

A real job of the tiny model on Ray with real workers; `rlhf scale` from another shell, kill -9 of a worker's process.
The phases are those of the job's own journal; the first group is the first one in its ledger that the worker
generated and that the batch can use.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

from rlhf_cluster.driver.ledger.ledger import read_history
from rlhf_cluster.models import registry
from rlhf_cluster.testing.live_job import LiveJob

PHASES = ("seen", "process", "engine", "weights", "first group")
SETTINGS = (
    "runtime=ray",
    "train.num_steps=100000",
    "train.max_staleness=2",
    "checkpoint.every_steps=100000",
    "evaluation.num_prompts=1",
    'observers=["journal"]',
    "recovery.backoff_s=0",
    "recovery.max_restarts=100",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="vllm", choices=("vllm", "transformers"))
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    home = Path(os.environ.get("RLHF_CLUSTER_HOME") or tempfile.mkdtemp(prefix="rlhf-bench-"))
    registry.add("word-world", progress=lambda line: None)
    rows = [
        ("scale out", [], scaled),
        ("killed, no spare", [], killed),
        ("killed, warm spare", ["rollout.spares=1"], killed_beside_a_spare),
    ]
    print(f"{arguments.engine}: seconds of each phase, median of {arguments.repeat}")
    print(f"{'':<20}" + "".join(f"{phase:>13}" for phase in (*PHASES, "in all")))
    for name, more, act in rows:
        runs = Path(tempfile.mkdtemp(prefix="rlhf-bench-"))
        settings = [*SETTINGS, f"rollout.engine.type={arguments.engine}", *more]
        with LiveJob("word-world", home=home, runs=runs, settings=settings) as job:
            job.wait_for_step(3)
            splits = [act(job) for _ in range(arguments.repeat)]
            job.call("stop")
            job.end()
            job.audit()
        median = [statistics.median(split) for split in zip(*splits, strict=True)]
        total_s = statistics.median(sum(split) for split in splits)
        print(f"{name:<20}" + "".join(f"{seconds:>13.2f}" for seconds in (*median, total_s)), flush=True)


def scaled(job: LiveJob) -> list[float]:
    """From the command to the first group of the joiner."""
    size = list(states(job).values()).count("serving")
    known = {event["worker_id"] for event in job.events("WorkerChanged")}
    begun_s = time.time()
    done = job.call("scale", f"rollout={size + 1}")
    assert done.returncode == 0, done.stderr
    seen_s = time.time()
    split = phases(job, begun_s, seen_s, lambda worker_id: worker_id not in known)
    job.call("scale", f"rollout={size}")
    job.wait(lambda: list(states(job).values()).count("serving") == size, "the old size")
    return split


def killed(job: LiveJob) -> list[float]:
    """From kill -9 to the first group of the replacement."""
    job.wait(lambda: job.alive("rollout worker"), "a worker")
    begun_s = time.time()
    victim = job.signal("rollout worker")
    lost_s = job.wait(lambda: since(job, "lost").get(victim), "its loss")
    return phases(job, begun_s, lost_s, lambda worker_id: worker_id != victim)


def killed_beside_a_spare(job: LiveJob) -> list[float]:
    job.wait(lambda: "spare" in states(job).values(), "a spare")
    return killed(job)


def states(job: LiveJob) -> dict[str, str]:
    """Of every rollout worker, as last told."""
    return {e["worker_id"]: e["state"] for e in job.events("WorkerChanged") if e["role"] == "rollout worker"}


def since(job: LiveJob, state: str) -> dict[str, float]:
    """When each worker entered `state`."""
    return {e["worker_id"]: e["time_s"] for e in job.events("WorkerChanged") if e["state"] == state}


def phases(job: LiveJob, begun_s: float, seen_s: float, is_joiner: Callable[[str], bool]) -> list[float]:
    """Seconds until it was seen, had a process, had an engine, had proved its weights, had brought a group."""

    def joiner() -> tuple[str, float] | None:
        found = [(worker, time_s) for worker, time_s in since(job, "serving").items() if is_joiner(worker)]
        return next((each for each in found if each[1] >= begun_s), None)

    worker_id, serving_s = job.wait(joiner, "a joiner that serves")
    first_s = job.wait(lambda: first_group_s(job, worker_id, serving_s), "its first group")
    process_s, engine_s = since(job, "starting")[worker_id], since(job, "adopting")[worker_id]
    marks = [begun_s, seen_s, process_s, engine_s, serving_s, first_s]
    # A spare had its process long before.
    marks = list(accumulate(marks, max))
    return [after - before for before, after in pairwise(marks)]


def first_group_s(job: LiveJob, worker_id: str, since_s: float) -> float | None:
    lives = read_history(job.job_dir).lives.values()
    times_s = [life.group.time_s for life in lives if life.group and worker_id in life.group.workers]
    return min((time_s for time_s in times_s if time_s >= since_s), default=None)


if __name__ == "__main__":
    main()
