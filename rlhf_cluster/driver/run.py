"""Runs a job from its config to its end: directory, claim, prompts, roles, the loop, and a last event on its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_cluster.config import JobConfig
from rlhf_cluster.config.load import JOB_FILE
from rlhf_cluster.driver.assemble import CHECKPOINTS, Setting, open_driver
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.clock import Clock, SystemClock
from rlhf_cluster.driver.evaluation_file import write_evaluation
from rlhf_cluster.driver.ledger.ledger import read_history
from rlhf_cluster.driver.loop import Driver
from rlhf_cluster.driver.observers.base import Observer
from rlhf_cluster.driver.prompts import load_prompts
from rlhf_cluster.driver.sizes import Desired, read_desired, sizes_of
from rlhf_cluster.driver.status_file import read_view, write_view
from rlhf_cluster.driver.whole_file import write_whole
from rlhf_cluster.errors import ConfigError, Fenced
from rlhf_cluster.records.events import Evaluated, JobEnded, JobStarted, Notice, Phase
from rlhf_cluster.records.members import JobView
from rlhf_cluster.runtime.base import open_runtime
from rlhf_cluster.runtime.roles import open_roles
from rlhf_cluster.runtime.spec import JobSpecs, open_transport

CHECK_CLAIM_S = 1.0
"""How soon a driver that another one has taken over from ends."""


async def run_job(
    job: JobConfig,
    *,
    observers: Observer,
    stop: asyncio.Event,
    job_dir: Path | None = None,
    take_over: bool = False,
    clock: Clock | None = None,
    at: Callable[[str], None] = lambda _: None,
) -> JobEnded:
    """Run `job`; with `job_dir`, go on with the one that ran there. Returns how it ended; what failed is raised after
    the event. Only a guard's stop is a failure that is returned: the job has ended in order, and its checkpoint is
    there.

    `observers` sees every event and is not closed here. Setting `stop` ends the job after the step under way, with a
    checkpoint. `take_over` drives a job whose driver cannot be known to be dead; that one is fenced off. `at` is called
    before every transition of the driver.
    """
    clock = clock or SystemClock()
    job_dir = job_dir or new_job_dir(job, clock)
    claim = Claim.take(job_dir, take_over=take_over)
    emit = observers.on_event
    setting = Setting(job=job, job_dir=job_dir, claim=claim, stop=stop, emit=emit, clock=clock, at=at)
    try:
        return await _run(setting)
    finally:
        claim.release()


async def _run(setting: Setting) -> JobEnded:
    job, job_dir = setting.job, setting.job_dir
    account = _Account(setting, first_step=read_history(job_dir).step)
    account.started()
    try:
        async with _driver(setting) as driver:
            account.driver = driver
            await _while_held(setting.claim, driver.run(setting.stop))
    except asyncio.CancelledError:
        account.ended("interrupted", "aborted")
        raise
    except BaseException as error:
        account.ended("failed", str(error))
        raise
    if not driver.is_finished and (guard := driver.guards.stopped_by):
        return account.ended(
            "failed", f"stopped after step {account.step} by the guard {guard.guard}: {guard.sentence}"
        )
    if not driver.is_finished:
        message = f"stopped after step {account.step}" if job.trains else "stopped; what was generated is kept"
        return account.ended("interrupted", message)
    return account.ended("succeeded", f"{job.train.num_steps} steps done" if job.trains else "all is generated")


async def _while_held(claim: Claim, work: Coroutine[Any, Any, None]) -> None:
    """What `work` gives. Raises `Fenced` soon after another driver has taken over, also from a job that is paused or
    waits and so writes nothing by which it would find out."""
    working = asyncio.create_task(work)
    try:
        while not working.done():
            claim.check()
            await asyncio.wait([working], timeout=CHECK_CLAIM_S)
        working.result()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def evaluate_job(job: JobConfig, checkpoint: Path | None = None) -> tuple[Evaluated, Path]:
    """The held-out evaluation alone, of the job's model or of `checkpoint`, and the directory that has its files.
    Raises `ConfigError` without data.eval."""
    if job.data.eval is None:
        raise ConfigError("data.eval is not set: add a [data.eval] table with held-out prompts")
    if checkpoint:
        # The reference stays what it was in training.
        reference = job.reference.model_copy(update={"model": job.reference.model or job.model})
        job = job.model_copy(update={"model": str(checkpoint.resolve()), "reference": reference})
    clock = SystemClock()
    job_dir = new_job_dir(job, clock, kind="-eval")
    claim = Claim.take(job_dir)
    setting = Setting(job=job, job_dir=job_dir, claim=claim, stop=asyncio.Event(), emit=lambda event: None, clock=clock)
    try:
        async with _driver(setting) as driver:
            event = await driver.evaluate_alone()
        await asyncio.to_thread(write_evaluation, job_dir, job, event)
        return event, job_dir
    finally:
        claim.release()


class _Account:
    """The first and the last event of a job; knows the step it has reached before and after its driver exists."""

    def __init__(self, setting: Setting, *, first_step: int) -> None:
        self._setting = setting
        self._first_step = first_step
        self.driver: Driver | None = None

    @property
    def step(self) -> int:
        return self.driver.step if self.driver else self._first_step

    def started(self) -> None:
        setting = self._setting
        event = JobStarted(
            time_s=setting.clock.time(),
            step=self.step,
            job_name=setting.job.name,
            job_dir=setting.job_dir,
            num_steps=setting.job.train.num_steps,
            first_step=self._first_step,
        )
        setting.emit(event)

    def ended(self, outcome: str, message: str) -> JobEnded:
        setting = self._setting
        newest = sorted((setting.job_dir / CHECKPOINTS).glob("step-*"))[-1:]
        event = JobEnded(
            time_s=setting.clock.time(),
            step=self.step,
            outcome=outcome,
            message=message,
            job_dir=setting.job_dir,
            checkpoint=newest[0] if newest else None,
        )
        setting.emit(event)
        if view := read_view(setting.job_dir):
            # On a disk that is full the error that is on its way says so, and this one would take its place. Where
            # another driver has the job, the status is its own.
            with suppress(OSError, Fenced):
                setting.claim.check()
                done = self.driver.progress[0] if self.driver else view.step
                write_view(setting.job_dir, _at_its_end(view, event, num_done=done))
        return event


def _at_its_end(view: JobView, event: JobEnded, *, num_done: int) -> JobView:
    """The last view with nobody at work any more; who was lost, and why, stays to be looked into."""
    return replace(
        view,
        time_s=event.time_s,
        step=num_done,
        state=event.outcome,
        phase=event.message,
        num_in_flight=0,
        waiting_for="",
        pools=tuple(
            replace(pool, members=tuple(member for member in pool.members if member.state == "lost"))
            for pool in view.pools
        ),
    )


@asynccontextmanager
async def _driver(setting: Setting) -> AsyncGenerator[Driver]:
    job, clock, emit = setting.job, setting.clock, setting.emit
    first_step = read_history(setting.job_dir).step
    driver: Driver | None = None
    desired = _desired(setting, step=first_step)
    emit(Phase(time_s=clock.time(), step=first_step, name="starting the roles"))
    # Reading prompts and starting Ray take seconds each and do not need one another.
    reading = asyncio.create_task(asyncio.to_thread(load_prompts, job))
    try:
        async with open_runtime(job) as runtime:
            prompts = await reading
            specs = JobSpecs(
                job=job,
                epoch=setting.claim.epoch,
                transport=open_transport(job, job_dir=setting.job_dir),
                probe_token_ids=prompts.probe_token_ids,
                log_dir=None if runtime.one_process else setting.job_dir / "logs",
            )

            def step() -> int:
                return driver.step if driver else first_step

            async with (
                open_roles(runtime, job, specs, sizes=sizes_of(desired), clock=clock, emit=emit, step=step) as roles,
                open_driver(setting, roles, prompts, desired=desired) as driver,
            ):
                yield driver
    finally:
        reading.cancel()


def _desired(setting: Setting, *, step: int) -> dict[str, Desired]:
    """What a former driver was asked for last. A file that nobody can read is told about and passed over."""
    try:
        return read_desired(setting.job_dir)
    except ConfigError as error:
        text = f"{error}. The job begins with the sizes of its job file"
        setting.emit(Notice(time_s=setting.clock.time(), step=step, level="warning", text=text))
        return {}


def new_job_dir(job: JobConfig, clock: Clock, *, kind: str = "") -> Path:
    """`<output_dir>/<name><kind>-<number>`, made now, with the whole config inside."""
    job.output_dir.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1_000_000):
        job_dir = job.output_dir / f"{job.name}{kind}-{number}"
        try:
            job_dir.mkdir()
        except FileExistsError:
            continue
        write_job_file(job_dir, job)
        return job_dir.resolve()
    raise ConfigError(f"{job.output_dir} holds a million jobs called {job.name}: choose another output_dir")


def write_job_file(job_dir: Path, job: JobConfig) -> None:
    """The whole config, by which the job of the directory begins and is resumed."""
    write_whole(job_dir / JOB_FILE, job.model_dump_json(indent=2) + "\n")
