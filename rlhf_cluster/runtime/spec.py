"""From a job to role specifications: which class, its arguments, CPUs, GPUs and environment.

Runtimes differ only in where they build a specification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_cluster.config import JobConfig
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.models.registry import resolve

if TYPE_CHECKING:
    from rlhf_cluster.roles import WeightTransport


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSpec:
    """One replica of a role, not yet anywhere."""

    role: str
    worker_id: str
    factory: str
    """`package.module:Class`."""
    arguments: Mapping[str, Any]
    cpus: float
    gpus: float
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom ones of a Ray cluster."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Must be set before the role's process imports torch or vllm."""
    log_dir: Path | None = None
    """Where a role in a process of its own writes what it prints, as `<worker_id>.log`; None leaves it to Ray."""

    def build(self) -> Any:
        return resolve_name(self.factory)(**self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpecs:
    """The specifications of a job's roles; an attempt of the job has its own, because its epoch is in them."""

    job: JobConfig
    epoch: int
    transport: WeightTransport
    probe_token_ids: np.ndarray
    log_dir: Path | None

    def rollout(self, number: int) -> RoleSpec:
        job, settings, engine = self.job, self.job.rollout, self.job.rollout.engine
        if getattr(engine, "dtype", None) == "auto":
            engine = engine.model_copy(update={"dtype": job.serving_dtype})
        worker_id = f"rollout-{number}"
        return RoleSpec(
            role="rollout worker",
            worker_id=worker_id,
            factory="rlhf_cluster.rollout.worker:RolloutWorker",
            arguments={
                "engine_settings": engine,
                "model_path": resolve(job.model),
                "worker_id": worker_id,
                "transport": self.transport,
                "threads": settings.threads,
            },
            cpus=settings.cpus,
            gpus=settings.gpus,
            resources=settings.resources,
            environment=threads_environment(settings.threads) | settings.environment,
            log_dir=self.log_dir,
        )

    def reward(self, number: int) -> RoleSpec:
        settings = self.job.reward_server
        worker_id = f"reward-{number}"
        return RoleSpec(
            role="reward server",
            worker_id=worker_id,
            factory="rlhf_cluster.rewards.server:RewardServer",
            arguments={"rewards": self.job.rewards, "settings": settings, "worker_id": worker_id},
            cpus=settings.cpus,
            gpus=settings.gpus,
            resources=settings.resources,
            environment=threads_environment(1),
            log_dir=self.log_dir,
        )

    def reference(self, number: int) -> RoleSpec:
        settings = self.job.reference
        worker_id = f"reference-{number}"
        return RoleSpec(
            role="reference scorer",
            worker_id=worker_id,
            factory="rlhf_cluster.reference.scorer:ReferenceScorer",
            arguments={
                "settings": settings,
                "model_path": resolve(settings.model or self.job.model),
                "temperature": self.job.temperature,
                "worker_id": worker_id,
            },
            cpus=settings.cpus,
            gpus=settings.gpus,
            resources=settings.resources,
            environment=threads_environment(settings.threads),
            log_dir=self.log_dir,
        )

    def learner(self, incarnation: int) -> list[RoleSpec]:
        """Every rank of one learner group; `incarnation` counts the groups of this driver from 0."""
        settings = self.job.learner
        spec = learner_spec(self.job, probe_token_ids=self.probe_token_ids, author=(self.epoch, incarnation))
        again = f".{incarnation}" if incarnation else ""
        return [
            RoleSpec(
                role="learner",
                worker_id=f"learner-{rank}{again}",
                factory="rlhf_cluster.learner.role:LearnerRole",
                arguments={"spec": spec, "rank": rank, "num_ranks": settings.num_ranks, "transport": self.transport},
                cpus=settings.cpus,
                gpus=settings.gpus,
                resources=settings.resources,
                environment=threads_environment(settings.threads),
                log_dir=self.log_dir,
            )
            for rank in range(settings.num_ranks)
        ]


def learner_spec(job: JobConfig, *, probe_token_ids: np.ndarray, author: tuple[int, int] = (0, 0)) -> LearnerSpec:
    """What all ranks of a group know."""
    return LearnerSpec(
        settings=job.learner,
        model_path=resolve(job.model),
        temperature=job.temperature,
        num_steps=job.train.num_steps,
        seed=job.seed,
        serving_dtype=job.serving_dtype,
        probe_token_ids=probe_token_ids,
        probe_tolerance=job.probe_tolerance,
        model=job.algorithm.model,
        critic_path=resolve(job.learner.critic.model) if job.learner.critic.model else None,
        full_every=job.weights.full_every,
        author=author,
    )


def threads_environment(threads: int) -> dict[str, str]:
    """One OpenMP pool a process, of this size, whose idle threads sleep: spinning ones starve the other roles."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        # glibc keeps freed memory instead of giving it back after every step and faulting it in again, for threads
        # other than the main one too: a quarter of a learner's CPU-seconds.
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
        "MALLOC_MMAP_THRESHOLD_": str(16 * 2**30),
    }


def open_transport(job: JobConfig, *, job_dir: Path) -> WeightTransport:
    """The transport that `weights.transport` names; picklable, so that each role gets its own side of it."""
    if job.transport == "memory":
        from rlhf_cluster.weights.memory import MemoryTransport

        return MemoryTransport()
    if job.transport == "filesystem":
        from rlhf_cluster.weights.filesystem import FilesystemTransport

        return FilesystemTransport(_weights_folder(job, job_dir) / "weights")
    from rlhf_cluster.runtime.object_store import ObjectStoreTransport

    return ObjectStoreTransport()


def _weights_folder(job: JobConfig, job_dir: Path) -> Path:
    if job.weights.directory is None:
        return job_dir
    # Others may have a job of this name too, in a home of theirs; each would take the other's files for its own.
    whose = hashlib.blake2b(str(job_dir.absolute()).encode(), digest_size=4).hexdigest()
    return Path(job.weights.directory) / f"{job_dir.name}-{whose}"
