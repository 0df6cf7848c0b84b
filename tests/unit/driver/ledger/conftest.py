"""A small job that writes a real ledger, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.ledger import Ledger
from rlhf_cluster.records import Adopted, Batch, LogitProbe, RolloutGroup, StepReport, WeightHandle, WeightManifest
from rlhf_cluster.testing import FakeClock
from rlhf_cluster.testing.groups import make_group

WORKER = "rollout-0"
PROMPTS_PER_STEP = 2


class SmallJob:
    """Drives a ledger as a driver would; synchronous, two prompts a step and one dropped."""

    def __init__(self, job_dir: Path) -> None:
        self.job_dir = job_dir
        self.claim = Claim.take(job_dir, take_over=True)
        self.ledger = Ledger.open(job_dir, claim=self.claim, clock=FakeClock(7.0))

    def resume(self) -> None:
        """Say what begins anew, and replay the batches that no learner is known to have learned."""
        history = self.ledger.history
        self.ledger.opened(history.step, [*history.outstanding, *history.dropped_since_last_accept])
        for step in history.unlearned():
            self.learned(step)

    def learned(self, step: int) -> None:
        self.ledger.learned(StepReport(step=step, version=step + 1, metrics={"learner/loss": 1 / (step + 1)}))

    def step(self) -> None:
        step = self.ledger.history.step
        first = min(self.ledger.history.outstanding, default=self.ledger.history.next_request_id)
        self.publish(step)
        self.ledger.dispatched([first, first + 1, first + 2], worker_id=WORKER, version=step)
        self.ledger.dropped(first, prompt_id=f"{first}/0", reason="flat")
        groups = [group(request_id, version=step) for request_id in (first + 1, first + 2)]
        for each in groups:
            self.ledger.completed(each, workers=(WORKER,))
        self.ledger.accept(Batch(step=step, groups=tuple(groups)))
        self.learned(step)

    def publish(self, version: int) -> None:
        print_ = f"print-{version}"
        manifest = WeightManifest(version=version, tensors=(), num_bytes=0, fingerprint=print_)
        probe = LogitProbe(token_ids=np.zeros(1, np.int32), logprobs=np.zeros(0, np.float32), tolerance=0.1)
        self.ledger.published(WeightHandle(manifest=manifest, location=None, probe=probe))
        proof = {"fingerprint": print_, "num_held_tensors": 0, "probe_gap": 0.0, "adopt_s": 0.0}
        self.ledger.proved(Adopted(worker_id=WORKER, version=version, **proof))

    def checkpoint(self, *, forget_before: int) -> None:
        step = self.ledger.history.step
        self.ledger.saved(step, f"step-{step:06d}")
        self.ledger.forget_before(forget_before)


def group(request_id: int, *, version: int) -> RolloutGroup:
    return replace(make_group([3, 2], request_id=request_id, version=version, num_prompt_tokens=2), advantages=None)


@pytest.fixture
def small_job() -> Iterator[Callable[[Path], SmallJob]]:
    """Opens a ledger in a directory; the jobs opened by it are closed in the end."""
    jobs: list[SmallJob] = []

    def start(job_dir: Path) -> SmallJob:
        jobs.append(SmallJob(job_dir))
        return jobs[-1]

    yield start
    for job in jobs:
        job.ledger.close()
