"""Recomputes steps of a job from what it left on disk, and compares their losses with the logged ones to the bit.

Consumes `job.json`, a checkpoint, and the batches of the ledger since; writes nothing into the job's directory, so the
job may be running.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.config import JobConfig
from rlhf_cluster.config.load import read_job
from rlhf_cluster.driver.checkpoints import algorithm_of, by_step, newest_verified, step_of
from rlhf_cluster.driver.credit import credited
from rlhf_cluster.driver.ledger import group_bytes, read_history
from rlhf_cluster.driver.ledger.batches import accepted_groups
from rlhf_cluster.driver.ledger.rollout_log import read_group
from rlhf_cluster.errors import ConfigError, LedgerCorrupt
from rlhf_cluster.flow.history import History
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.records import Batch, RolloutGroup
from rlhf_cluster.runtime.base import open_runtime
from rlhf_cluster.runtime.bounds import within
from rlhf_cluster.runtime.spec import JobSpecs
from rlhf_cluster.weights.memory import MemoryTransport

WHO = {"role": "learner", "worker_id": "learner-0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One step done again."""

    step: int
    num_tokens: int
    logged_loss: float | None
    """None when the job ended before its learner told it."""
    loss: float

    @property
    def is_equal(self) -> bool | None:
        """To the bit; None when there is nothing to compare with."""
        return None if self.logged_loss is None else float(self.logged_loss).hex() == float(self.loss).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightBundle:
    """What a job left on disk to do its steps again."""

    job_dir: Path
    job: JobConfig
    history: History

    @classmethod
    def read(cls, job_dir: Path) -> FlightBundle:
        """Raises `ConfigError` where no job is, `StorageError` where its ledger cannot be read."""
        return cls(job_dir=job_dir, job=read_job(job_dir), history=read_history(job_dir))

    def start(self, step: int, *, tell: Callable[[str], None]) -> Path | None:
        """The checkpoint to begin from so as to do `step`; None is the model that the job began with.

        Raises `ConfigError` for a step that cannot be done again, naming those that can.
        """
        if step >= self.history.step:
            raise ConfigError(f"step {step} was not accepted yet: {self._possible()}")
        checkpoint = newest_verified(self.job_dir / "checkpoints", tell=tell, step_at_most=step)
        if (step_of(checkpoint) if checkpoint else 0) < self.history.settled.step:
            raise ConfigError(f"step {step} is older than what is kept: {self._possible()}")
        return checkpoint

    async def batch(self, step: int, algorithm: Algorithm, learner: LearnerGroup) -> Batch:
        """Credited, as the learner got it. Raises `LedgerCorrupt` when it is not the batch that was accepted."""
        accepted = self.history.steps[step].accepted
        groups = accepted_groups(self.history, step, read=partial(read_group, self.job_dir / "ledger"))
        batch = Batch(step=step, groups=await credited(algorithm, groups, score=partial(self._scored, learner)))
        digest = group_bytes.batch_digest(batch.groups)
        if digest != accepted.digest:
            raise LedgerCorrupt(
                f"step {step}: the batch has digest {digest} and had {accepted.digest} when it was accepted: its "
                "groups were changed, or the algorithm gives other credit than it did then"
            )
        return batch

    async def _scored(self, learner: LearnerGroup, groups: Sequence[RolloutGroup]) -> Sequence[RolloutGroup]:
        return await within(self.job.limits.score_s, learner.score(groups), activity="scoring", **WHO)

    def logged_loss(self, step: int) -> float | None:
        """That of the first time, not of later replays."""
        learned = self.history.steps[step].learned
        return float.fromhex(learned[0].loss) if learned else None

    def _possible(self) -> str:
        """Says which steps can be done again; from the oldest checkpoint since which every batch is kept."""
        settled = self.history.settled.step
        begins = [0, *by_step(self.job_dir / "checkpoints")]
        first = min((step for step in begins if step >= settled), default=self.history.step)
        last = self.history.step - 1
        if first > last:
            return "no step can be replayed now"
        return f"steps {first} to {last} can be replayed (the first step of a job is 0)"


async def replay(job_dir: Path, *, step: int, tell: Callable[[str], None]) -> list[Replayed]:
    """Do every step again from the nearest checkpoint up to and with `step`, the first of a job being 0.

    `tell` gets a sentence for every checkpoint that was refused.
    """
    bundle = FlightBundle.read(job_dir)
    checkpoint = bundle.start(step, tell=tell)
    limits = bundle.job.limits
    algorithm = algorithm_of(checkpoint, default=bundle.job.algorithm) if checkpoint else bundle.job.algorithm
    done = []
    async with _learner(bundle.job) as learner:
        if checkpoint:
            await within(limits.start_s, learner.load(checkpoint), activity=f"loading {checkpoint.name}", **WHO)
        for number in range(step_of(checkpoint) if checkpoint else 0, step + 1):
            batch = await bundle.batch(number, algorithm, learner)
            updating = learner.update(algorithm, batch)
            report = await within(limits.update_s, updating, activity=f"updating on step {number}", **WHO)
            algorithm = algorithm.adapted(batch.groups)
            done.append(
                Replayed(
                    step=number,
                    num_tokens=batch.num_tokens,
                    logged_loss=bundle.logged_loss(number),
                    loss=float(report.metrics["learner/loss"]),
                )
            )
    return done


@asynccontextmanager
async def _learner(job: JobConfig) -> AsyncGenerator[LearnerGroup]:
    """A learner group and nothing else: one rank in this process, several where the job runs them."""
    # It publishes nothing, so neither the transport nor the probe is ever used.
    specs = JobSpecs(
        job=job, epoch=0, transport=MemoryTransport(), probe_token_ids=np.zeros(1, np.int32), log_dir=None
    ).learner(0)
    where = job.model_copy(update={"runtime": "local"}) if job.learner.num_ranks == 1 else job
    async with open_runtime(where) as runtime:
        group = LearnerGroup([await runtime.open(spec) for spec in specs])
        try:
            await within(job.limits.start_s, group.start(), activity="starting", **WHO)
            yield group
        finally:
            await within(job.limits.close_s, group.close(), activity="closing", **WHO)
