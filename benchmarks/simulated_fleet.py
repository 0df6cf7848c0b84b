"""One job on simulated workers, in real or virtual time: what the real driver makes of it, beside what is possible.

Driver, buffer, routing, scoring, ledger and audit are the real ones; rollout workers, reward server and learner are
objects of `rlhf_cluster.testing` on the same event loop that only wait. There is no model, tokenizer or other process,
so whatever is lost against `flow/makespan.py` is lost by the driver.
"""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rlhf_cluster.data.draws import Epochs
from rlhf_cluster.data.sources import Row
from rlhf_cluster.data.stream import PromptStream
from rlhf_cluster.driver.assemble import Setting, open_driver
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.clock import SystemClock
from rlhf_cluster.driver.ledger.ledger import read_history
from rlhf_cluster.driver.prompts import JobPrompts
from rlhf_cluster.driver.rollouts import request_seed
from rlhf_cluster.flow.audit import AuditReport, audit
from rlhf_cluster.flow.makespan import makespan_s
from rlhf_cluster.records import RolloutRequest
from rlhf_cluster.records.events import Event, StepDone
from rlhf_cluster.runtime.roles import open_roles
from rlhf_cluster.testing import BareSpecs, make_job, virtual_time
from rlhf_cluster.testing.fleet import Pace, SimulatedRank, SimulatedRuntime, SimulatedWorker, lognormal
from rlhf_cluster.testing.virtual_time import VirtualClock

COMPLETIONS = 8
TOKENS = 32
CAP_PER_MEAN = 8.0
"""The longest groups are cut to so many times the mean."""
START_S = 1.0
"""Until a worker in the place of a lost one can adopt weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A job of groups of 8 completions of 32 tokens, whose seconds are lognormal."""

    num_workers: int
    slots: int
    """Groups that a worker generates at once."""
    prompts_per_step: int
    num_steps: int
    max_staleness: int
    mean_s: float
    """Of a group."""
    sigma: float = 1.0
    kill_at_s: float = math.inf
    """When one worker ends without warning, counted from the job's start."""
    spares: int = 0

    @property
    def num_completions(self) -> int:
        return self.prompts_per_step * self.num_steps * COMPLETIONS

    @property
    def durations_s(self) -> list[float]:
        """Of every group of the job, in the order of the stream; the simulated workers take exactly these."""
        seconds_of = self._seconds_of()
        seeds = (request_seed(0, number) for number in range(self.prompts_per_step * self.num_steps))
        return [seconds_of(SimpleNamespace(seed=seed)) for seed in seeds]

    @property
    def train_s(self) -> float:
        """As long as it takes all slots to generate the groups of a step, if none ever idles."""
        return statistics.fmean(self.durations_s) * self.prompts_per_step / (self.num_workers * self.slots)

    def ideal_s(self) -> float:
        """No schedule of these durations that keeps the order and the staleness bound is shorter by much."""
        return makespan_s(
            self.durations_s,
            num_workers=self.num_workers,
            slots=self.slots,
            prompts_per_step=self.prompts_per_step,
            train_s=self.train_s,
            num_steps=self.num_steps,
            max_staleness=self.max_staleness,
        )

    def pace(self) -> Pace:
        """Nothing takes time but generation, training and the start of a worker in the place of another."""
        return Pace(
            seconds_of=self._seconds_of(),
            slots=self.slots,
            tokens_per_completion=TOKENS,
            worker_start_s=START_S if self.kill_at_s < math.inf else 0.0,
            adopt_s=0.0,
            score_s=0.0,
            learner_start_s=0.0,
            update_s=self.train_s,
            publish_s=0.0,
            save_s=0.0,
        )

    def _seconds_of(self) -> Any:
        return lognormal(self.sigma, mean_s=self.mean_s, cap_s=CAP_PER_MEAN * self.mean_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run of a case took."""

    makespan_s: float
    """From the start of the first hand-over to the end of the last step's."""
    cpu_s: float
    """Of this process in that time: the driver and all simulated roles."""
    num_updates: int
    num_generated: int
    """Tokens that workers made, the lost one included."""
    audit: AuditReport

    @property
    def num_thrown_away(self) -> int:
        """Tokens that were generated and not trained on."""
        return self.num_generated - self.audit.num_tokens


def run_real(case: Case) -> Outcome:
    """In real time."""
    gc.collect()
    return _run(case, SystemClock(), asyncio.run)


def run_virtual(case: Case) -> Outcome:
    """In virtual time, in which the driver's own work takes none: what its decisions alone make of the case."""
    clock = VirtualClock()
    return _run(case, clock, lambda work: virtual_time.run(work, clock=clock))


def bare_cpu_s(case: Case) -> float:
    """CPU-seconds that the case's groups cost its workers alone, in real time: nobody checks, scores or keeps them.

    Every slot makes two groups, which is scaled to the number of the case.
    """
    return asyncio.run(_bare(case)) * case.prompts_per_step * case.num_steps / (2 * case.num_workers * case.slots)


def _run(case: Case, clock: Any, run: Any) -> Outcome:
    with tempfile.TemporaryDirectory() as directory:
        times, runtime = run(_drive(case, Path(directory), clock))
        report = audit(read_history(Path(directory)), max_staleness=case.max_staleness, num_steps=case.num_steps)
    workers = [role for role in runtime.opened if isinstance(role, SimulatedWorker)]
    ranks = [role for role in runtime.opened if isinstance(role, SimulatedRank)]
    return Outcome(
        makespan_s=times[0],
        cpu_s=times[1],
        num_updates=sum(rank.version for rank in ranks),
        num_generated=sum(worker.tokens_total for worker in workers),
        audit=report,
    )


async def _drive(case: Case, job_dir: Path, clock: Any) -> tuple[tuple[float, float], SimulatedRuntime]:
    """((seconds, CPU-seconds), all the roles there were)."""
    job = _job(case)
    claim = Claim.take(job_dir)
    runtime = SimulatedRuntime(case.pace())
    ends: list[tuple[float, float]] = []

    def emit(event: Event) -> None:
        if isinstance(event, StepDone):
            ends.append((clock.monotonic(), time.process_time()))

    setting = Setting(job=job, job_dir=job_dir, claim=claim, stop=asyncio.Event(), emit=emit, clock=clock)
    async with (
        open_roles(runtime, job, BareSpecs(epoch=claim.epoch), clock=clock, emit=emit) as roles,
        open_driver(setting, roles, _prompts(case), serve_control=False) as driver,
    ):
        began = (clock.monotonic(), time.process_time())
        killing = asyncio.create_task(_kill(case, runtime))
        await driver.run(asyncio.Event())
        killing.cancel()
    await runtime.close()
    return (ends[-1][0] - began[0], ends[-1][1] - began[1]), runtime


async def _kill(case: Case, runtime: SimulatedRuntime) -> None:
    """The busiest one, so that there is something to lose."""
    if case.kill_at_s < math.inf:
        await asyncio.sleep(case.kill_at_s)
        workers = [role for role in runtime.opened if isinstance(role, SimulatedWorker)]
        held = [(await worker.status()).num_in_flight for worker in workers]
        workers[held.index(max(held))].kill()


def _job(case: Case) -> Any:
    return make_job(
        [
            f"train.num_steps={case.num_steps}",
            f"train.prompts_per_step={case.prompts_per_step}",
            f"train.completions_per_prompt={COMPLETIONS}",
            f"train.max_staleness={case.max_staleness}",
            f"rollout.num_workers={case.num_workers}",
            f"rollout.spares={case.spares}",
            f"rollout.max_in_flight={case.slots}",
            f"rollout.max_new_tokens={TOKENS}",
        ],
        checkpoint={"every_steps": None},
    )


def _prompts(case: Case) -> JobPrompts:
    rows = [Row(number=number, prompt=f"prompt {number}") for number in range(case.prompts_per_step)]
    return JobPrompts(
        train=PromptStream(Epochs(rows, seed=0), _tokenize, max_prompt_tokens=16),
        eval=(),
        decode=lambda completions: [""] * len(completions),
        probe_token_ids=np.zeros(1, np.int32),
    )


def _tokenize(row: Row) -> tuple[str, np.ndarray]:
    return str(row.prompt), np.array([2, 3 + row.number], np.int32)


async def _bare(case: Case) -> float:
    pace, job = case.pace(), _job(case)
    workers = [
        SimulatedWorker(f"rollout-{n}", seconds_of=pace.seconds_of, slots=case.slots, tokens_per_completion=TOKENS)
        for n in range(case.num_workers)
    ]
    handle = await SimulatedRank().publish()
    for worker in workers:
        await worker.adopt(handle)
    prompts = _prompts(case).train
    requests = [
        RolloutRequest(
            request_id=number,
            prompt=prompts[number],
            num_completions=COMPLETIONS,
            sampling=job.rollout.sampling,
            seed=request_seed(0, number),
        )
        for number in range(2 * case.num_workers * case.slots)
    ]
    waiting = iter(requests)
    started_s = time.process_time()
    await asyncio.gather(*(_one_slot(worker, waiting) for worker in workers for _ in range(case.slots)))
    return time.process_time() - started_s


async def _one_slot(worker: SimulatedWorker, waiting: Any) -> None:
    for request in waiting:
        async for _ in worker.run([request]):
            pass
