"""A job on a Ray cluster of two nodes; the one with rollout workers is lost, and later another one joins.

    python nodes_come_and_go.py RUNS_DIRECTORY

In a process of its own, because Ray's test cluster starts its nodes with the environment of this process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_memory_monitor_refresh_ms": "0"}
os.environ |= {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "2",
}

from rlhf_cluster.config.load import load_job
from rlhf_cluster.driver.observers.build import JobObservers
from rlhf_cluster.driver.run import run_job
from rlhf_cluster.records.events import Event, StepDone, WorkerChanged
from rlhf_cluster.runtime import ray_environment

BOUND_S = 200


class Watcher:
    """Passes events on and lets the story wait for them."""

    def __init__(self, observers: JobObservers) -> None:
        self.events: list[Event] = []
        self._observers = observers
        self._news = asyncio.Event()

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()
        self._observers.on_event(event)

    def close(self) -> None:
        self._observers.close()

    async def until(self, what) -> None:
        while not what(self.events):
            self._news.clear()
            await self._news.wait()


def states(events: list[Event], state: str) -> set[str]:
    return {e.worker_id for e in events if isinstance(e, WorkerChanged) and e.state == state}


def step(events: list[Event]) -> int:
    return max((event.step for event in events if isinstance(event, StepDone)), default=0)


async def story(runs: Path, address: str, cluster) -> None:
    job = load_job(
        "word-world",
        [
            "runtime=ray",
            f'ray.address="{address}"',
            f"output_dir={runs}",
            "rollout.engine.type=transformers",
            "rollout.num_workers=3",
            "rollout.cpus=1",
            "train.num_steps=100000",
            "train.max_staleness=2",
            "algorithm.keep_zero_variance=true",
            "evaluation.num_prompts=1",
            'observers=["journal"]',
        ],
    )
    # The head holds the learner and the reward server, and one rollout worker beside them.
    second = cluster.add_node(num_cpus=2)
    stop, watcher = asyncio.Event(), Watcher(JobObservers(job.observers))
    driving = asyncio.create_task(run_job(job, observers=watcher, stop=stop))
    await watcher.until(lambda events: step(events) >= 2)
    cluster.remove_node(second, allow_graceful=False)
    await watcher.until(lambda events: states(events, "lost"))
    print("lost", *sorted(states(watcher.events, "lost")))
    reached = step(watcher.events)
    await watcher.until(lambda events: states(events, "pending") and step(events) >= reached + 2)
    cluster.add_node(num_cpus=2)
    before = states(watcher.events, "serving")
    await watcher.until(lambda events: len(states(events, "serving") - before) >= 2)
    print("joined", *sorted(states(watcher.events, "serving") - before))
    reached = step(watcher.events)
    await watcher.until(lambda events: step(events) >= reached + 2)
    stop.set()
    ended = await driving
    watcher.close()
    print("ended", ended.outcome, ended.job_dir)


def main(runs: Path) -> None:
    ray_environment.prepare(private=False)
    from ray.cluster_utils import Cluster

    # Short, because Ray puts unix sockets below it.
    directory = tempfile.mkdtemp(prefix="rlhf-", dir="/tmp")
    # Ray's `Cluster` notes its address here, and makes the directory only for a head that has no other.
    Path("/tmp/ray").mkdir(exist_ok=True)
    head = {"num_cpus": 3, "include_dashboard": False, "temp_dir": directory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        asyncio.run(asyncio.wait_for(story(runs, cluster.address, cluster), BOUND_S))
    finally:
        cluster.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
