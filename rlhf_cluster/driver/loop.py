"""The story of a job: one training step in reading order, and the loop around it.

    driver      gather --> credit --> update --> publish --> adopt
    workers     generate (while the learner learns, when max_staleness > 0)
    rewards     score each group as it completes, while others still generate

`max_staleness = 0` is synchronous training; there is no second loop for it. The buffer decides what may go out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.checkpoints import Checkpoints
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.evaluate import Evaluator
from rlhf_cluster.driver.figures import RoleFigures, Stopwatch, batch_figures
from rlhf_cluster.driver.rollouts import Rollouts
from rlhf_cluster.records import Adopted, Batch, StepReport, WeightHandle
from rlhf_cluster.records.events import Event, Phase, StepDone
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.roles import Roles

Result = TypeVar("Result")


class Driver:
    """Owns the order of things. Holds no weights, no tokens beyond the batch at hand, and no policy of its own."""

    def __init__(
        self,
        job: JobConfig,
        roles: Roles,
        *,
        rollouts: Rollouts,
        evaluator: Evaluator,
        checkpoints: Checkpoints,
        emit: Callable[[Event], None],
        clock: Clock,
        first_step: int = 0,
    ) -> None:
        self.job = job
        self.roles = roles
        self.rollouts = rollouts
        self.evaluator = evaluator
        self.checkpoints = checkpoints
        self.emit = emit
        self.clock = clock
        self.step = first_step
        self._phase_name = ""
        self._role_figures = RoleFigures(roles, bound_s=job.limits.status_s)

    async def run(self, stop: asyncio.Event) -> None:
        """Train until the last step, or until `stop` is set and the step under way is done."""
        self._phase("handing the weights to the rollout workers")
        await self._adopt(await self._publish())
        await self._evaluate_when(not stop.is_set())
        while self.step < self.job.train.num_steps and not stop.is_set():
            self._phase("training")
            await self.train_step()
            last = self.step == self.job.train.num_steps
            await self._evaluate_when(last or self._due(self.job.evaluation.every_steps))
            await self._save_when(last or stop.is_set() or self._due(self.job.checkpoint.every_steps))

    async def train_step(self) -> None:
        """One optimizer step."""
        watch = Stopwatch(self.clock)
        groups = await watch.time("driver/gather_s", self.rollouts.gather())
        batch = Batch(step=self.step, groups=self.job.algorithm.credit(groups))
        report = await self._update(batch)
        handle = await watch.time("weights/publish_s", self._publish())
        adopted = await watch.time("weights/adopt_s", self._adopt(handle))
        self.step += 1
        await self._report(batch, report, adopted, watch)

    async def _update(self, batch: Batch) -> StepReport:
        answer = self.roles.learner.update(self.job.algorithm, batch)
        return await self._learner(self.job.limits.update_s, answer, f"updating on step {batch.step}")

    async def _publish(self) -> WeightHandle:
        return await self._learner(self.job.limits.weights_s, self.roles.learner.publish(), "publishing weights")

    async def _adopt(self, handle: WeightHandle) -> list[Adopted]:
        """All workers adopt at once; what they are generating goes on under the new version."""
        return list(await asyncio.gather(*(self._adopt_one(name, handle) for name in self.roles.rollout_workers)))

    async def _adopt_one(self, worker_id: str, handle: WeightHandle) -> Adopted:
        adopted = await within(
            self.job.limits.weights_s,
            self.roles.rollout_workers[worker_id].adopt(handle),
            role="rollout worker",
            worker_id=worker_id,
            activity=f"adopting weights version {handle.version}",
        )
        self.rollouts.adopted(worker_id, adopted.version)
        return adopted

    async def _learner(self, bound_s: float, answer: Awaitable[Result], activity: str) -> Result:
        return await within(bound_s, answer, role="learner", worker_id="learner-0", activity=activity)

    async def _report(self, batch: Batch, report: StepReport, adopted: list[Adopted], watch: Stopwatch) -> None:
        metrics = {
            **batch_figures(batch, self.rollouts.take_tally()),
            **report.metrics,
            **watch.figures(),
            **await self._role_figures.since_last(),
            "driver/step_s": watch.total(),
            "weights/probe_gap": max(proof.probe_gap for proof in adopted),
        }
        self.emit(
            StepDone(
                time_s=self.clock.time(), step=self.step, version=report.version, metrics=metrics, groups=batch.groups
            )
        )

    async def _evaluate_when(self, due: bool) -> None:
        if due and self.evaluator.prompts:
            self._phase("evaluating")
            self.emit(await self.evaluator.evaluate(step=self.step))

    async def _save_when(self, due: bool) -> None:
        if due:
            saving = self.checkpoints.save(self.roles.learner, step=self.step)
            self.emit(await self._learner(self.job.limits.update_s, saving, "writing a checkpoint"))

    def _due(self, every_steps: int | None) -> bool:
        return every_steps is not None and self.step % every_steps == 0

    def _phase(self, name: str) -> None:
        if name != self._phase_name:
            self._phase_name = name
            self.emit(Phase(time_s=self.clock.time(), step=self.step, name=name))
