"""The story of a job: one training step in reading order, and the loop around it.

    driver      gather --> credit --> accept --> update --> publish --> adopt
    workers     generate (while the learner learns, when max_staleness > 0)
    learner     computes the gradient of the groups that are complete, while gather waits for the others
    rewards     score each group as it completes, while others still generate

`max_staleness = 0` is synchronous training; there is no second loop for it. The buffer decides what may go out. From
`accept` on the batch is durable: whatever dies, it is trained on in this step, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.checkpoints import Checkpoints
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.evaluate import Evaluator
from rlhf_cluster.driver.feed import Feed
from rlhf_cluster.driver.figures import RoleFigures, Stopwatch, batch_figures, tally_figures
from rlhf_cluster.driver.fleet import Fleet
from rlhf_cluster.driver.guards import Guards
from rlhf_cluster.driver.pacing import Pacing
from rlhf_cluster.driver.replica import LearnerReplica
from rlhf_cluster.errors import RoleError, StorageError
from rlhf_cluster.records import Adopted, Batch, StepReport
from rlhf_cluster.records.events import CheckpointSaved, Evaluated, Event, Notice, Phase, StepDone
from rlhf_cluster.runtime.bounds import within

if TYPE_CHECKING:
    from rlhf_cluster.driver.ledger.ledger import Ledger


MAX_LAST_SAVES = 3


class Task(Protocol):
    """What a job does with its policy besides training it."""

    @property
    def progress(self) -> tuple[int, int]:
        """Prompts that are done, and all."""
        ...

    async def run(self, stop: asyncio.Event) -> bool:
        """Whether it was done before `stop` was set; it goes on where it ended."""
        ...


def _may_begin_early(algorithm: Algorithm) -> bool:
    """Whether the head of a batch can be learned before the rest is there: nothing of it waits for the other groups."""
    return algorithm.by_group and "value" not in algorithm.needs and algorithm.updates == (1, 1)


class Driver:
    """Owns the order of things. Holds no weights, no tokens beyond the batch at hand, and no policy of its own."""

    def __init__(
        self,
        job: JobConfig,
        *,
        feed: Feed,
        fleet: Fleet,
        learner: LearnerReplica,
        ledger: Ledger,
        evaluator: Evaluator,
        checkpoints: Checkpoints,
        role_figures: RoleFigures,
        pacing: Pacing,
        guards: Guards,
        tasks: Sequence[Task] = (),
        emit: Callable[[Event], None],
        clock: Clock,
        at: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tasks` are done after the last step. `at` is called with the name of every transition that the driver is
        about to make."""
        self.job = job
        self.feed = feed
        self.fleet = fleet
        self.learner = learner
        self.ledger = ledger
        self.evaluator = evaluator
        self.checkpoints = checkpoints
        self.emit = emit
        self.clock = clock
        self.step = learner.num_applied
        self.step_under_way = self.step
        """The number that the step under way will have; that of the last one while there is none."""
        learner.until_saved = self._until_saved
        self.phase = ""
        self.wants_checkpoint = False
        self.pacing = pacing
        self.guards = guards
        self.is_finished = False
        """All steps and tasks are done."""
        self._tasks = tasks
        self._role_figures = role_figures
        self._at = at
        self._saving: asyncio.Task[None] | None = None
        self._on_head = learner.learn_head if job.train.learn_early and _may_begin_early(job.algorithm) else None
        self._workers_follow = job.learn_from == "rollouts"
        self._served: int | None = None
        """The version that the rollout workers were given last."""
        self._evaluated: Evaluated | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Train until the last step, or until `stop` is set or a guard has tripped, and the step under way is done."""
        if self._workers_follow:
            self._enter("handing the weights to the rollout workers")
            await self._hand_over()
        await self._evaluate_when(not stop.is_set())
        while self.step < self.job.train.num_steps and not stop.is_set() and self.guards.stopped_by is None:
            self._enter("training")
            self.step_under_way = self.step + 1
            await self.train_step()
            last = self.step == self.job.train.num_steps
            await self._evaluate_when(last or self._due(self.job.evaluation.every_steps))
            await self._save_when(self._due(self.job.checkpoint.every_steps))
        await self._save_last()
        self.is_finished = self.step == self.job.train.num_steps and await self._tasks_done(stop)

    async def train_step(self) -> None:
        """One optimizer step."""
        watch = Stopwatch(self.clock)
        groups = await watch.time("driver/gather_s", self.feed.gather(self._on_head))
        batch = await watch.time("driver/credit_s", self.learner.credited(self.step, groups))
        self._at("accept")
        self.ledger.accept(batch)
        self._at("update")
        report = await watch.time("driver/update_s", self.learner.update(batch))
        self._at("publish")
        adopted = await watch.time("weights/hand_over_s", self._followed())
        self.step += 1
        await self._report(batch, report, adopted, watch)

    async def _tasks_done(self, stop: asyncio.Event) -> bool:
        """Whether they were all done before `stop` was set."""
        for task in self._tasks:
            await self._hand_over()
            if stop.is_set() or not await task.run(stop):
                return False
        return True

    @property
    def progress(self) -> tuple[int, int]:
        """What is done, and all there is to do, in the job's `unit`."""
        if self.job.trains:
            return self.step, self.job.train.num_steps
        told = [task.progress for task in self._tasks]
        return sum(done for done, _ in told), sum(total for _, total in told)

    async def evaluate_alone(self) -> Evaluated:
        """Hand the weights over and evaluate; nothing is trained."""
        return await self.evaluator.evaluate(step=self.step, feed=self.feed, hand_over=self._hand_over)

    async def aclose(self) -> None:
        """Give up the checkpoint that is still being written, and a learner being mended: the job ends without them."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
        await self.learner.aclose()

    async def _followed(self) -> list[Adopted]:
        """Whose answers are learned from has every version at once; others get it when they are to answer."""
        return await self._hand_over() if self._workers_follow else []

    async def _hand_over(self) -> list[Adopted]:
        """Publish the learner's version and have the workers adopt it; what they are generating goes on under it."""
        if self._served == self.learner.num_applied:
            return []
        handle = await self.learner.publish()
        self._at("adopt")
        adopted = await self.fleet.offer(handle, publish_full=self.learner.publish_full)
        self._served = handle.version
        return adopted

    async def _report(self, batch: Batch, report: StepReport, adopted: list[Adopted], watch: Stopwatch) -> None:
        tally = self.feed.take_tally()
        metrics = {
            **batch_figures(batch),
            **tally_figures(tally),
            **report.metrics,
            **watch.figures(),
            **await self._role_figures.since_last(),
            "driver/step_s": watch.total(),
            "driver/groups_queued": float(self.feed.line().num_complete),
        }
        if self._workers_follow:
            metrics["weights/probe_gap"] = max((proof.probe_gap for proof in adopted), default=0.0)
            metrics["weights/adopt_s"] = max((proof.adopt_s for proof in adopted), default=0.0)
        if not tally.was_paused and self._workers_follow:
            metrics |= self.pacing.observe(metrics, step=self.step)
        done = StepDone(
            time_s=self.clock.time(), step=self.step, version=report.version, metrics=metrics, groups=batch.groups
        )
        self.emit(done)
        self.guards.see_step(done)

    async def _evaluate_when(self, due: bool) -> None:
        if due and self.job.trains and self.evaluator.has_work:
            self._enter("evaluating")
            self._evaluated = await self.evaluator.evaluate(step=self.step, feed=self.feed, hand_over=self._hand_over)
            self.emit(self._evaluated)
            self.guards.see_evaluation(self._evaluated)

    async def _save_when(self, due: bool) -> None:
        """The learner is asked for the state of this step now; the files are written while training goes on."""
        if due or self.wants_checkpoint:
            await self._saved()
            self.wants_checkpoint = False  # whoever has asked while the last one was written gets this one
            self._at("save")
            self._saving = asyncio.create_task(self._save(await self._begin_checkpoint(), self.step))

    async def _begin_checkpoint(self) -> asyncio.Future[CheckpointSaved]:
        # A group that is being mended holds an earlier step, and would be saved under the name of this one.
        group = await self.learner.whole()
        # An evaluation of an earlier step says nothing about this one.
        evaluated = self._evaluated if self._evaluated and self._evaluated.step == self.step else None
        return self.checkpoints.begin(group, step=self.step, metrics=evaluated.metrics if evaluated else None)

    async def _save(self, begun: Awaitable[CheckpointSaved], step: int) -> None:
        where = {"role": "learner", "worker_id": self.learner.host.worker_id, "activity": "writing a checkpoint"}
        try:
            saved = await within(self.job.limits.update_s, begun, **where)
        except (StorageError, RoleError) as error:
            # Training can go on without this one: the one before is there, and the batches since are in the log.
            text = f"the checkpoint of step {step} was not written, the one before stays: {error}"
            self.emit(Notice(time_s=self.clock.time(), step=step, level="error", text=text))
            return
        self.ledger.saved(step, saved.path.name)
        # Until there are as many checkpoints as are kept, the job's beginning is one of them. The best ones do not
        # count: a job goes on from the newest, and the log since the best of all steps may be most of it.
        newest = self.checkpoints.steps()[-self.job.checkpoint.keep :]
        if len(newest) == self.job.checkpoint.keep:
            self.ledger.forget_before(newest[0])
        self.emit(saved)

    async def _saved(self) -> None:
        if self._saving is not None:
            await self._saving
            self._saving = None

    async def _until_saved(self) -> None:
        """Whatever becomes of the checkpoint that is being written; it is bounded."""
        if self._saving is not None:
            await asyncio.wait([self._saving])

    async def _save_last(self) -> None:
        """The job's result: where it was lost with the learner, another learner writes it. Before the first step there
        is none."""
        await self._saved()
        if not self.step:
            return
        for _ in range(MAX_LAST_SAVES):
            if self.step in self.checkpoints.steps():
                return
            await self._save(await self._begin_checkpoint(), self.step)
            if self.step not in self.checkpoints.steps():
                # Whatever was wrong with the learner is mended by asking it for something.
                await self.learner.answered()
        if self.step not in self.checkpoints.steps():
            raise StorageError(
                f"the checkpoint of step {self.step} could not be written in {MAX_LAST_SAVES} attempts; every batch is "
                "in the log, so once there is room `rlhf resume` writes it"
            )

    def _due(self, every_steps: int | None) -> bool:
        return every_steps is not None and self.step % every_steps == 0

    def _enter(self, phase: str) -> None:
        if phase != self.phase:
            self.phase = phase
            self.emit(Phase(time_s=self.clock.time(), step=self.step, name=phase))
