"""Runs a job from its config to its end: directory, prompts, roles, the loop, and a last event on how it went."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from rlhf_cluster.config import JobConfig
from rlhf_cluster.config.load import check
from rlhf_cluster.data.stream import StreamState
from rlhf_cluster.driver.checkpoints import STATE_FILE, Checkpoints, read_state
from rlhf_cluster.driver.clock import Clock, SystemClock
from rlhf_cluster.driver.evaluate import Evaluator
from rlhf_cluster.driver.loop import Driver
from rlhf_cluster.driver.observers.base import Observer
from rlhf_cluster.driver.prompts import JobPrompts, load_prompts
from rlhf_cluster.driver.rollouts import Rollouts
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.records.events import Evaluated, JobEnded, JobStarted, Phase
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.roles import Roles, open_roles, open_runtime

JOB_FILE = "job.json"


async def run_job(
    job: JobConfig,
    *,
    observers: Observer,
    stop: asyncio.Event,
    job_dir: Path | None = None,
    checkpoint: Path | None = None,
    clock: Clock | None = None,
) -> JobEnded:
    """Run `job`, from `checkpoint` on where one is given. Returns how it ended; what failed is raised after the event.

    `observers` sees every event and is not closed here. Setting `stop` ends the job after the step under way, with a
    checkpoint.
    """
    clock = clock or SystemClock()
    job_dir = job_dir or new_job_dir(job, clock)
    first_step = read_state(checkpoint)["step"] if checkpoint else 0
    account = _Account(observers, clock, job_dir=job_dir, first_step=first_step)
    account.started(job)
    try:
        async with _driver(job, observers, job_dir=job_dir, checkpoint=checkpoint, clock=clock) as driver:
            account.driver = driver
            await driver.run(stop)
    except asyncio.CancelledError:
        account.ended("interrupted", f"aborted; {_way_on(job_dir)}")
        raise
    except BaseException as error:
        account.ended("failed", str(error))
        raise
    if account.step < job.train.num_steps:
        return account.ended("interrupted", f"stopped after step {account.step}; {_way_on(job_dir)}")
    return account.ended("succeeded", f"{job.train.num_steps} steps done")


def _way_on(job_dir: Path) -> str:
    """What to type next, which depends on whether there is a checkpoint yet."""
    if any((job_dir / "checkpoints").glob("step-*")):
        return f"`rlhf resume {job_dir}` goes on from the newest checkpoint"
    return f"there is no checkpoint yet, so start again with `rlhf run {job_dir / JOB_FILE}`"


def resume_point(job_dir: Path) -> tuple[JobConfig, Path]:
    """The job that ran in `job_dir` and its newest checkpoint. Raises `ConfigError` where nothing can be resumed."""
    job_file = job_dir / JOB_FILE
    if not job_file.is_file():
        raise ConfigError(f"{job_dir} is no job directory: it holds no {JOB_FILE}")
    saved = [path for path in sorted((job_dir / "checkpoints").glob("step-*")) if (path / STATE_FILE).is_file()]
    if not saved:
        raise ConfigError(f"{job_dir} has no checkpoint to resume from; start again with `rlhf run {job_file}`")
    return check(json.loads(job_file.read_text()), source=str(job_file)), saved[-1]


async def evaluate_job(job: JobConfig, checkpoint: Path | None = None) -> Evaluated:
    """The held-out evaluation alone, of the job's model or of `checkpoint`. Raises `ConfigError` without data.eval."""
    if job.data.eval is None:
        raise ConfigError("data.eval is not set: add a [data.eval] table with held-out prompts")
    if checkpoint:
        job = job.model_copy(update={"model": str(checkpoint)})
    clock = SystemClock()
    job_dir = new_job_dir(job, clock)
    async with _open(job, job_dir=job_dir) as (prompts, roles):
        evaluator = Evaluator(job, roles, prompts=prompts.eval, decode=prompts.decode, clock=clock)
        handle = await within(
            job.limits.weights_s, roles.learner.publish(), role="learner", worker_id="learner-0", activity="publishing"
        )
        for worker_id, worker in roles.rollout_workers.items():
            where = {"role": "rollout worker", "worker_id": worker_id, "activity": "adopting weights"}
            await within(job.limits.weights_s, worker.adopt(handle), **where)
        return await evaluator.evaluate(step=0)


class _Account:
    """The first and the last event of a job; knows the step it has reached before and after its driver exists."""

    def __init__(self, observers: Observer, clock: Clock, *, job_dir: Path, first_step: int) -> None:
        self._observers = observers
        self._clock = clock
        self._job_dir = job_dir
        self._first_step = first_step
        self.driver: Driver | None = None

    @property
    def step(self) -> int:
        return self.driver.step if self.driver else self._first_step

    def started(self, job: JobConfig) -> None:
        event = JobStarted(
            time_s=self._clock.time(),
            step=self.step,
            job_name=job.name,
            job_dir=self._job_dir,
            num_steps=job.train.num_steps,
            first_step=self._first_step,
        )
        self._observers.on_event(event)

    def ended(self, outcome: str, message: str) -> JobEnded:
        newest = sorted((self._job_dir / "checkpoints").glob("step-*"))[-1:]
        event = JobEnded(
            time_s=self._clock.time(),
            step=self.step,
            outcome=outcome,
            message=message,
            job_dir=self._job_dir,
            checkpoint=newest[0] if newest else None,
        )
        self._observers.on_event(event)
        return event


@asynccontextmanager
async def _driver(
    job: JobConfig, observers: Observer, *, job_dir: Path, checkpoint: Path | None, clock: Clock
) -> AsyncGenerator[Driver]:
    emit = observers.on_event
    first_step = read_state(checkpoint)["step"] if checkpoint else 0
    emit(Phase(time_s=clock.time(), step=first_step, name="starting the roles"))
    async with _open(job, job_dir=job_dir) as (prompts, roles):
        state = await _restore(job, roles, prompts, checkpoint) if checkpoint else {"step": 0, "next_request_id": 0}
        rollouts = Rollouts(
            job,
            roles,
            prompts=prompts.train,
            decode=prompts.decode,
            emit=emit,
            clock=clock,
            first_step=state["step"],
            first_request_id=state["next_request_id"],
        )
        driver = Driver(
            job,
            roles,
            rollouts=rollouts,
            evaluator=Evaluator(job, roles, prompts=prompts.eval, decode=prompts.decode, clock=clock),
            checkpoints=Checkpoints(
                job_dir / "checkpoints",
                keep=job.checkpoint.keep,
                state=lambda: _position(rollouts),
                clock=clock,
            ),
            emit=emit,
            clock=clock,
            first_step=state["step"],
        )
        async with aclosing(rollouts):
            yield driver


def _position(rollouts: Rollouts) -> dict[str, Any]:
    request_id, place = rollouts.position()
    return {"next_request_id": request_id, "prompts": dataclasses.asdict(place)}


async def _restore(job: JobConfig, roles: Roles, prompts: JobPrompts, checkpoint: Path) -> dict[str, Any]:
    state = read_state(checkpoint)
    prompts.train.restore(StreamState(**state["prompts"]))
    loading = roles.learner.load(checkpoint)
    await within(job.limits.start_s, loading, role="learner", worker_id="learner-0", activity="loading a checkpoint")
    return state


@asynccontextmanager
async def _open(job: JobConfig, *, job_dir: Path) -> AsyncGenerator[tuple[JobPrompts, Roles]]:
    # Reading prompts and starting Ray take seconds each and do not need one another.
    reading = asyncio.create_task(asyncio.to_thread(load_prompts, job))
    try:
        async with open_runtime(job) as runtime:
            prompts = await reading
            async with open_roles(runtime, job, job_dir=job_dir, probe_token_ids=prompts.probe_token_ids) as roles:
                yield prompts, roles
    finally:
        reading.cancel()


def new_job_dir(job: JobConfig, clock: Clock) -> Path:
    """`<output_dir>/<name>-<number>`, made now, with the whole config inside."""
    job.output_dir.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1_000_000):
        job_dir = job.output_dir / f"{job.name}-{number}"
        try:
            job_dir.mkdir()
        except FileExistsError:
            continue
        (job_dir / JOB_FILE).write_text(job.model_dump_json(indent=2) + "\n")
        return job_dir.resolve()
    raise ConfigError(f"{job.output_dir} holds a million jobs called {job.name}: choose another output_dir")
