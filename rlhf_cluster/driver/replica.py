"""The learner as a replica of the batch log: whatever dies, another group loads a checkpoint, replays, and goes on.

Every batch is durable before the learner gets it, so losing the learner loses no generated token. A replay applies the
same batches to the same weights; its losses are compared with those that were logged, to the bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.checkpoints import algorithm_of, newest_verified
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.credit import credited
from rlhf_cluster.driver.refused import with_culprits_kept
from rlhf_cluster.errors import BadAnswer, RoleError, StepRefused
from rlhf_cluster.records import Batch, RolloutGroup, StepReport, WeightHandle
from rlhf_cluster.records.events import Event, LearnerRecovered, Notice
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.watch import watched

if TYPE_CHECKING:
    from rlhf_cluster.driver.ledger.ledger import Ledger
    from rlhf_cluster.learner.group import LearnerGroup
    from rlhf_cluster.runtime.learner_host import LearnerHost

Result = TypeVar("Result")
ROLE = "learner"


class LearnerReplica:
    """The learner group that is there now, and how another one takes its place."""

    def __init__(
        self,
        job: JobConfig,
        host: LearnerHost,
        *,
        ledger: Ledger,
        checkpoints: Path,
        emit: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        self.job = job
        self.host = host
        self.num_applied = 0
        """Batches that the learner has applied: the version it holds."""
        self.algorithm = job.algorithm
        """For the next batch: where a coefficient follows what is observed, no longer the job's own value."""
        self.on_mended: Callable[[WeightHandle], None] = lambda handle: None
        """Gets the weights that a new group has published, in the place of those that went with the old one, if any."""
        self.until_saved: Callable[[], Awaitable[None]] = _at_once
        """Returns when no checkpoint is being written: a new one takes older ones away, and the batches since them."""
        self.on_replayed: Callable[[Batch, StepReport], None] = lambda batch, report: None
        """Gets a batch of the log, and what it gave when it was applied once more."""
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._emit = emit
        self._clock = clock
        self._has_published = False
        """Whether there may be workers that hold weights of a group, or look for them."""
        self._mending: asyncio.Task[None] | None = None
        """The mending under way, or the last one."""

    async def begin(self, num_steps: int) -> None:
        """Bring the first group to where the ledger is; a group that is lost on the way is replaced."""
        group = self.host.group
        try:
            await self._catch_up(num_steps)
        except RoleError as error:
            self.num_applied = num_steps
            await self._mend(group, error)

    async def whole(self) -> LearnerGroup:
        """The group, with all batches applied; waits while it is mended. Raises what mending failed with."""
        if self._mending is not None:
            # Whoever waits here may be given up meanwhile, as a joiner that is lost is; the mending goes on.
            await asyncio.shield(self._mending)
        return self.host.group

    async def aclose(self) -> None:
        """Give up a mending that is under way."""
        if self._mending is not None:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)

    async def _catch_up(self, num_steps: int) -> tuple[float, float, int]:
        """Bring a fresh group to where `num_steps` batches are applied. Returns seconds to load, seconds to replay,
        and the number of batches replayed."""
        started_s = self._clock.monotonic()
        path = await self._newest_checkpoint(num_steps)
        self.num_applied = 0
        self.algorithm = self.job.algorithm if path is None else algorithm_of(path, default=self.job.algorithm)
        if path is not None:
            load = self.host.group.load(path)
            await self._bounded(load, self.job.limits.start_s, f"loading {path.name}", counts_tokens=False)
            self.num_applied = await self._version(self.host.group)
        loaded_s = self._clock.monotonic()
        num_replayed = num_steps - self.num_applied
        while self.num_applied < num_steps:
            await self._replay(self.num_applied)
        return loaded_s - started_s, self._clock.monotonic() - loaded_s, num_replayed

    async def learn_head(self, groups: Sequence[RolloutGroup]) -> None:
        """Begin the next step with the `groups` at the head of its batch. Changes nothing but the time it takes, so a
        learner that is lost here is left for `update` to find and mend."""
        if self._is_mending:
            return
        group, step = self.host.group, self.num_applied
        answer = group.accumulate(self.algorithm, self.algorithm.credit(groups), step=step)
        activity = f"learning the head of step {step}"
        with suppress(RoleError):
            await self._bounded(answer, self.job.limits.update_s, activity, counts_tokens=True, group=group)

    async def credited(self, step: int, groups: Sequence[RolloutGroup]) -> Batch:
        """The batch of `step`, which has the groups."""
        return Batch(step=step, groups=await credited(self.algorithm, groups, score=self.score))

    async def score(self, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        """With the critic's `values`, or with `rewards` where a reward model is trained."""
        return await self._surely(lambda group: self._scored(group, groups))

    async def assess(self, groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
        """Loss and figures over credited groups that are not learned from."""

        async def assessed(group: LearnerGroup) -> Mapping[str, float]:
            answer = group.assess(self.algorithm, groups)
            activity = f"assessing {len(groups)} held-out groups"
            return await self._bounded(answer, self.job.limits.score_s, activity, counts_tokens=False, group=group)

        return await self._surely(assessed)

    async def update(self, batch: Batch) -> StepReport:
        """The optimizer step of a batch that the ledger has accepted."""
        algorithm = self.algorithm
        report = await self._surely(lambda group: self._update(group, batch, algorithm))
        self.num_applied = batch.step + 1
        self.algorithm = algorithm.adapted(batch.groups)
        self._ledger.learned(report)
        return report

    async def publish(self) -> WeightHandle:
        handle = await self._surely(self._published)
        self._has_published = True
        self._ledger.published(handle)
        return handle

    async def publish_full(self) -> WeightHandle:
        return await self._surely(lambda group: self._weights(group.publish_full(), "publishing weights whole"))

    async def answered(self) -> None:
        """Returns when a group has told that it holds all batches; one that does not answer is replaced."""
        await self._surely(self._told)

    async def _surely(self, call: Callable[[LearnerGroup], Awaitable[Result]]) -> Result:
        """What `call` gives, from this group or the next. Errors that are not a role's (a loss that is not finite)
        travel."""
        while True:
            group = await self.whole()
            try:
                result = await call(group)
            except RoleError as error:
                self._begin_mending(group, error)
            else:
                # What a group did that another call has given up meanwhile went with it, so it is done again.
                if await self.whole() is group:
                    return result

    @property
    def _is_mending(self) -> bool:
        return self._mending is not None and not self._mending.done()

    def _begin_mending(self, lost: LearnerGroup, error: RoleError) -> None:
        """Unless another call found it before."""
        if self.host.group is lost and not self._is_mending:
            self._mending = asyncio.create_task(self._mend(lost, error))

    async def _mend(self, lost: LearnerGroup, error: RoleError) -> None:
        """Replace the group and bring the next one to the same step."""
        target = self.num_applied
        while self.host.group is lost:
            started_s = self._clock.monotonic()
            lost = await self.host.replace(error)
            respawn_s = self._clock.monotonic() - started_s
            await self.until_saved()
            try:
                load_s, replay_s, num_replayed = await self._catch_up(target)
                handle = await self._published(self.host.group) if self._has_published else None
            except RoleError as again:
                self.num_applied = target
                error = again
                continue
            self._emit(
                LearnerRecovered(
                    time_s=self._clock.time(),
                    step=target,
                    reason=str(error),
                    respawn_s=respawn_s,
                    load_s=load_s,
                    replay_s=replay_s,
                    num_replayed=num_replayed,
                )
            )
            if handle is not None:
                self._ledger.published(handle)
                self.on_mended(handle)
            return

    async def _replay(self, step: int) -> None:
        group, algorithm = self.host.group, self.algorithm
        groups = await credited(algorithm, self._ledger.groups(step), score=lambda groups: self._scored(group, groups))
        batch = Batch(step=step, groups=groups)
        report = await self._update(group, batch, algorithm)
        before = self._ledger.history.steps[step].learned
        logged = before[0].loss if before else None
        loss = float(report.metrics["learner/loss"])
        if logged is not None and logged != loss.hex():
            text = (
                f"the replay of step {step} gave the loss {loss!r} and not "
                f"{float.fromhex(logged)!r} as logged: training goes on from the replay. Another kind of machine or "
                "number of ranks does this; the same machine must not"
            )
            self._emit(Notice(time_s=self._clock.time(), step=step, level="warning", text=text))
        self._ledger.learned(report)
        self.on_replayed(batch, report)
        self.num_applied = step + 1
        self.algorithm = algorithm.adapted(groups)

    async def _scored(self, group: LearnerGroup, groups: Sequence[RolloutGroup]) -> tuple[RolloutGroup, ...]:
        activity = f"scoring {len(groups)} groups"
        answer = group.score(groups)
        return await self._bounded(answer, self.job.limits.score_s, activity, counts_tokens=False, group=group)

    async def _update(self, group: LearnerGroup, batch: Batch, algorithm: Algorithm) -> StepReport:
        answer = group.update(algorithm, batch)
        activity = f"updating on step {batch.step}"
        try:
            report = await self._bounded(answer, self.job.limits.update_s, activity, counts_tokens=True, group=group)
        except StepRefused as error:
            raise with_culprits_kept(error, batch, job_dir=self._checkpoints.parent) from error
        if report.version != batch.step + 1:
            name = self.host.worker_id
            raise BadAnswer(
                f"{name} holds version {report.version} after step {batch.step}",
                role=ROLE,
                worker_id=name,
                activity=activity,
            )
        return report

    async def _version(self, group: LearnerGroup) -> int:
        answer = group.status()
        return (await self._bounded(answer, self.job.limits.status_s, "status", counts_tokens=False)).version

    async def _told(self, group: LearnerGroup) -> None:
        version, name = await self._version(group), self.host.worker_id
        if version != self.num_applied:
            told = f"{name} says that it holds version {version} after {self.num_applied} steps"
            raise BadAnswer(told, role=ROLE, worker_id=name, activity="status")

    async def _published(self, group: LearnerGroup) -> WeightHandle:
        """Workers would refuse a version that goes back, and nobody could train on tokens of one from the future."""
        handle = await self._weights(group.publish(), "publishing weights")
        if handle.version != self.num_applied:
            name = self.host.worker_id
            raise BadAnswer(
                f"{name} published version {handle.version} after {self.num_applied} steps",
                role=ROLE,
                worker_id=name,
                activity="publishing weights",
            )
        return handle

    async def _weights(self, answer: Awaitable[WeightHandle], activity: str) -> WeightHandle:
        return await self._bounded(answer, self.job.limits.weights_s, activity, counts_tokens=False)

    async def _bounded(
        self,
        answer: Awaitable[Result],
        bound_s: float,
        activity: str,
        *,
        counts_tokens: bool,
        group: LearnerGroup | None = None,
    ) -> Result:
        recovery = self.job.recovery
        where = {"role": ROLE, "worker_id": self.host.worker_id, "activity": activity}
        alive = watched(
            answer,
            handle=group or self.host.group,
            stall_s=recovery.learner_stall_s,
            unresponsive_s=recovery.unresponsive_s,
            poll_s=min(5.0, recovery.unresponsive_s / 4),
            counts_tokens=counts_tokens,
            **where,
        )
        return await within(bound_s, alive, **where)

    async def _newest_checkpoint(self, step: int) -> Path | None:
        refused: list[str] = []
        path = await asyncio.to_thread(newest_verified, self._checkpoints, tell=refused.append, step_at_most=step)
        for sentence in refused:
            self._emit(Notice(time_s=self._clock.time(), step=step, level="error", text=sentence))
        return path


async def _at_once() -> None:
    pass
