"""Puts the driver of a job together from its parts, and starts what runs beside it: one place for the wiring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_cluster.config import JobConfig
from rlhf_cluster.data.stream import PromptStream
from rlhf_cluster.driver.checkpoints import Checkpoints, by_step, moved_fields
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.collect import PreferenceCollector
from rlhf_cluster.driver.control import Control
from rlhf_cluster.driver.evaluate import Evaluator
from rlhf_cluster.driver.feed import Feed
from rlhf_cluster.driver.figures import RoleFigures, Statuses
from rlhf_cluster.driver.fleet import Fleet
from rlhf_cluster.driver.guards import Guards
from rlhf_cluster.driver.ledger.ledger import DIRECTORY, Ledger
from rlhf_cluster.driver.ledger.reference_log import ReferenceLog
from rlhf_cluster.driver.loop import Driver, Task
from rlhf_cluster.driver.mailbox import Mailbox
from rlhf_cluster.driver.pacing import Pacing
from rlhf_cluster.driver.prompts import JobPrompts
from rlhf_cluster.driver.recorded import Recorded
from rlhf_cluster.driver.replica import LearnerReplica
from rlhf_cluster.driver.revise import AnswerReviser
from rlhf_cluster.driver.rollouts import Rollouts
from rlhf_cluster.driver.sampler import Sampler
from rlhf_cluster.driver.scoring import Scoring
from rlhf_cluster.driver.sizes import Desired, Sizes
from rlhf_cluster.driver.status_file import StatusFile
from rlhf_cluster.driver.untold import tell_untold
from rlhf_cluster.driver.view import Views
from rlhf_cluster.driver.workbench import Workbench
from rlhf_cluster.errors import Fenced, LedgerCorrupt
from rlhf_cluster.records import Batch, StepReport
from rlhf_cluster.records.commands import Command
from rlhf_cluster.records.events import Event, Notice, Phase
from rlhf_cluster.records.members import JobView
from rlhf_cluster.runtime.roles import Roles

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all parts of a driver share: where it works, and by which right."""

    job: JobConfig
    job_dir: Path
    claim: Claim
    stop: asyncio.Event
    emit: Callable[[Event], None]
    clock: Clock
    at: Callable[[str], None] = lambda _: None


@asynccontextmanager
async def open_driver(
    setting: Setting,
    roles: Roles,
    prompts: JobPrompts,
    *,
    desired: Mapping[str, Desired] | None = None,
    serve_control: bool = True,
) -> AsyncGenerator[Driver]:
    """The driver, with the learner caught up to the ledger and the prompts that were under way taken up again.

    `desired` is what a former driver was asked for last, with which `roles` have begun.
    """
    job, clock, emit = setting.job, setting.clock, setting.emit
    ledger = Ledger.open(setting.job_dir, claim=setting.claim, clock=clock)
    try:
        learner = await _learner(setting, roles, ledger)
        fleet = Fleet(job, roles.rollout, ledger=ledger, clock=clock)
        learner.on_mended = fleet.renew
        scoring = Scoring(job, rewards=roles.reward, references=roles.reference)
        feed = _feed(setting, fleet, scoring, ledger=ledger, prompts=prompts)
        sampler = Sampler(job, fleet, decode=prompts.decode)
        statuses = Statuses(roles, bound_s=job.limits.status_s)
        sizes = Sizes(job, roles.pools, job_dir=setting.job_dir, claim=setting.claim, desired=desired or {})
        pacing = Pacing(job, fleet, sizes, emit=emit, clock=clock)
        driver = Driver(
            job,
            feed=feed,
            fleet=fleet,
            learner=learner,
            ledger=ledger,
            evaluator=Evaluator(job, sampler, scoring, learner, prompts=prompts, clock=clock),
            checkpoints=_checkpoints(setting, learner),
            role_figures=RoleFigures(statuses, clock),
            pacing=pacing,
            guards=Guards(job, setting.job_dir, step=learner.num_applied, emit=emit, clock=clock),
            tasks=_tasks(setting, prompts, sampler, scoring, fleet),
            emit=emit,
            clock=clock,
            at=setting.at,
        )
        pools = [pool for pool in (roles.reward, roles.reference) if pool is not None]
        beside: dict[str, Coroutine[Any, Any, None]] = {f"drains of {p.role}s": scoring.follow(p) for p in pools}
        beside |= _control(setting, driver, roles, statuses) if serve_control else {}
        # The fleet first: groups that arrive while it ends are still begun to be scored.
        async with aclosing(feed), aclosing(fleet), aclosing(driver), _running(beside, driver):
            fleet.start()
            yield driver
    finally:
        ledger.close()


def _feed(setting: Setting, fleet: Fleet, scoring: Scoring, *, ledger: Ledger, prompts: JobPrompts) -> Feed:
    job, emit, clock = setting.job, setting.emit, setting.clock
    if isinstance(prompts.train, PromptStream):
        return Rollouts(
            job, fleet, scoring, ledger=ledger, prompts=prompts.train, decode=prompts.decode, emit=emit, clock=clock
        )
    examples = prompts.train
    comes_again = job.train.num_steps * job.train.prompts_per_step > examples.num_rows
    known = None
    if comes_again and "reference" in job.algorithm.needs:
        known = ReferenceLog(setting.job_dir / DIRECTORY, epoch=setting.claim.epoch)
    return Recorded(job, scoring, ledger=ledger, examples=examples, known=known, emit=emit, clock=clock)


def _tasks(setting: Setting, prompts: JobPrompts, sampler: Sampler, scoring: Scoring, fleet: Fleet) -> tuple[Task, ...]:
    job = setting.job
    if not isinstance(prompts.train, PromptStream) or not (job.preferences or job.constitution):
        return ()
    bench = Workbench(
        job=job,
        job_dir=setting.job_dir,
        prompts=prompts.train,
        sampler=sampler,
        scoring=scoring,
        fleet=fleet,
        emit=setting.emit,
        clock=setting.clock,
        step=job.train.num_steps,
    )
    revising = [AnswerReviser(bench, job.constitution)] if job.constitution else []
    collecting = [PreferenceCollector(bench, job.preferences)] if job.preferences else []
    return (*revising, *collecting)


async def _learner(setting: Setting, roles: Roles, ledger: Ledger) -> LearnerReplica:
    """With every batch applied that the ledger has accepted."""
    learner = LearnerReplica(
        setting.job,
        roles.learner,
        ledger=ledger,
        checkpoints=setting.job_dir / CHECKPOINTS,
        emit=setting.emit,
        clock=setting.clock,
    )
    step = ledger.history.step
    newest = max(by_step(setting.job_dir / CHECKPOINTS), default=0)
    if newest > step:
        # A batch is in the ledger before a checkpoint holds it, so this is not how the job left it.
        raise LedgerCorrupt(
            f"{setting.job_dir} holds a checkpoint of step {newest} and a ledger of {step} steps: its ledger was lost "
            "or is older. Restore ledger/ from a copy, or begin a new job with the checkpoint as its `model`"
        )
    if step:
        setting.emit(Phase(time_s=setting.clock.time(), step=step, name="bringing the learner up to the ledger"))
        replayed: dict[int, tuple[Batch, StepReport]] = {}
        learner.on_replayed = lambda batch, report: replayed.update({batch.step: (batch, report)})
        await learner.begin(step)
        learner.on_replayed = lambda batch, report: None
        tell_untold(ledger, job_dir=setting.job_dir, replayed=replayed, emit=setting.emit, clock=setting.clock)
    return learner


def _checkpoints(setting: Setting, learner: LearnerReplica) -> Checkpoints:
    settings = setting.job.checkpoint

    def state() -> dict[str, Any]:
        moved = moved_fields(learner.algorithm, since=setting.job.algorithm)
        return {"algorithm": moved} if moved else {}

    return Checkpoints(
        setting.job_dir / CHECKPOINTS,
        keep=settings.keep,
        keep_best=settings.keep_best,
        best_by=settings.best_by,
        state=state,
        clock=setting.clock,
        claim=setting.claim,
    )


def _control(
    setting: Setting, driver: Driver, roles: Roles, statuses: Statuses
) -> dict[str, Coroutine[Any, Any, None]]:
    """What answers people while the driver works, and nobody once another driver has taken over."""
    views = Views(driver, roles, statuses, epoch=setting.claim.epoch, stop=setting.stop, clock=setting.clock)
    control = Control(driver, roles, stop=setting.stop)

    # Both raise `Fenced` once another driver has the job: commands are for that one, and so is the status to tell.
    async def obey(command: Command) -> str:
        setting.claim.check()
        return await control.obey(command)

    async def view() -> JobView:
        setting.claim.check()
        return await views.now()

    return {"commands": Mailbox(setting.job_dir).serve(obey), "status.json": StatusFile(setting.job_dir).keep(view)}


@asynccontextmanager
async def _running(work: Mapping[str, Coroutine[Any, Any, None]], driver: Driver) -> AsyncGenerator[None]:
    """Run coroutines beside the block, and cancel them at its end. The job goes on without one that fails, and tells by
    its name what nobody sees to any more."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, Fenced):
            text = f"nobody sees to the job's {task.get_name()} any more: {type(error).__name__}: {error}"
            driver.emit(Notice(time_s=driver.clock.time(), step=driver.step, level="error", text=text))

    tasks = [asyncio.create_task(one, name=name) for name, one in work.items()]
    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
