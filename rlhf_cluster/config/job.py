"""`JobConfig`: everything a job is, with the checks that look at two sections at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from rlhf_cluster.algorithms import AlgorithmSettings, type_name
from rlhf_cluster.config.sections import (
    AutoscaleSettings,
    CheckpointSettings,
    EvaluationSettings,
    LimitSettings,
    RaySettings,
    RecoverySettings,
    TrainSettings,
    WeightsSettings,
)
from rlhf_cluster.data.settings import DataSettings
from rlhf_cluster.learner.settings import LearnerSettings
from rlhf_cluster.reference.settings import ReferenceSettings
from rlhf_cluster.rewards.settings import RewardServerSettings, RewardSettings, check_rewards
from rlhf_cluster.rollout.settings import RolloutSettings
from rlhf_cluster.settings import Settings

PROBE_TOLERANCE = {"bfloat16": 0.3, "float32": 0.001}


class JobConfig(Settings):
    """One job: which model learns what, from which prompts and rewards, on which workers."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Lower-case letters, digits and dashes."""
    description: str = ""
    """One line for `rlhf recipes list`."""
    seed: int = Field(0, ge=0)
    """Seeds the prompt order, every sampling request and the learner."""
    runtime: Literal["local", "ray"] = "ray"
    """`local` runs every role in this process; `ray` makes each an actor. A job gives the same numbers on both."""
    output_dir: Path = Path("runs")
    """The job's directory is made inside."""
    model: str
    """Name from `rlhf models list`, or a directory in Hugging Face format."""
    data: DataSettings
    """Where prompts come from."""
    rollout: RolloutSettings = RolloutSettings()
    """The workers that generate."""
    rewards: tuple[RewardSettings, ...] = ()
    """What a completion is worth: a weighted sum of these."""
    reward_server: RewardServerSettings = RewardServerSettings()
    """The workers that score."""
    reference: ReferenceSettings = ReferenceSettings()
    """The frozen policy, where the algorithm needs it."""
    algorithm: AlgorithmSettings
    """`type` names a built-in one or an import path; the rest are its hyper-parameters."""
    learner: LearnerSettings = LearnerSettings()
    """The ranks that train."""
    train: TrainSettings
    """Batch arithmetic and staleness."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Held-out evaluation."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """What is kept on disk."""
    weights: WeightsSettings = WeightsSettings()
    """Weight versions on their way to the workers."""
    limits: LimitSettings = LimitSettings()
    """Upper bounds on waiting."""
    recovery: RecoverySettings = RecoverySettings()
    """What is done about roles that are lost."""
    autoscale: AutoscaleSettings | None = None
    """Has a policy set the number of rollout workers, until `rlhf scale` says otherwise."""
    ray: RaySettings = RaySettings()
    """Which Ray cluster."""
    observers: tuple[str, ...] = ("journal", "console", "tensorboard", "samples", "curve")
    """Who listens to the job's events: built-in names or import paths."""

    @property
    def serving_dtype(self) -> str:
        """Dtype in which weights travel and are served."""
        return self.weights.dtype or ("bfloat16" if self.learner.precision == "bf16" else "float32")

    @property
    def probe_tolerance(self) -> float:
        return self.weights.probe_tolerance or PROBE_TOLERANCE[self.serving_dtype]

    @property
    def transport(self) -> str:
        if self.weights.transport != "auto":
            return self.weights.transport
        return "memory" if self.runtime == "local" else "object_store"

    @property
    def learn_from(self) -> str:
        """`rollouts` or `data`."""
        return self.train.learn_from or self.algorithm.learns_from[0]

    @property
    def generates(self) -> bool:
        """Whether the policy answers prompts: to learn from its answers, or to have them scored now and then."""
        return self.learn_from == "rollouts" or (
            self.data.eval is not None and bool(self.rewards) and self.algorithm.model != "reward_model"
        )

    @property
    def has_reward_servers(self) -> bool:
        """A recorded completion brings its reward along; what the policy answers is scored."""
        return bool(self.rewards) and self.generates

    @property
    def temperature(self) -> float:
        """The learner and the reference divide logits by it: that of the sampling, and 1 where nothing is sampled."""
        return self.rollout.temperature if self.learn_from == "rollouts" else 1.0

    @property
    def max_in_flight(self) -> int:
        """Prompts that a rollout worker holds at once."""
        if self.rollout.max_in_flight is not None:
            return self.rollout.max_in_flight
        num_sequences = getattr(self.rollout.engine, "max_num_seqs", None) or 256
        return max(1, num_sequences // self.train.completions_per_prompt)

    @property
    def has_one_rollout_worker(self) -> bool:
        """Whether there can be no second one: a process opens vLLM once, and the local runtime has one process."""
        return self.rollout.engine.type == "vllm" and self.runtime == "local"

    @model_validator(mode="after")
    def _sections_agree(self) -> JobConfig:
        if self.rewards:
            check_rewards(self.rewards)
        problems = [problem for check in CHECKS if (problem := check(self))]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _ranks_need_ddp(job: JobConfig) -> str | None:
    if job.learner.num_ranks > 1 and job.learner.backend == "plain":
        return (
            f'learner.num_ranks = {job.learner.num_ranks} with learner.backend = "plain": '
            'set learner.backend = "ddp" or learner.num_ranks = 1'
        )
    return None


def _ranks_need_processes(job: JobConfig) -> str | None:
    if job.learner.num_ranks > 1 and job.runtime == "local":
        return (
            f'learner.num_ranks = {job.learner.num_ranks} with runtime = "local", which has one process: '
            'set runtime = "ray" or learner.num_ranks = 1'
        )
    return None


def _vllm_workers_need_processes(job: JobConfig) -> str | None:
    rollout, bounds = job.rollout, job.autoscale
    if job.has_one_rollout_worker and rollout.num_workers + rollout.spares > 1:
        return (
            f"rollout.num_workers = {rollout.num_workers} and rollout.spares = {rollout.spares} of vLLM with runtime = "
            '"local", where vLLM can be opened once: set runtime = "ray", or rollout.num_workers = 1 without spares'
        )
    if job.has_one_rollout_worker and bounds and bounds.max_workers > 1:
        return (
            f'autoscale.max_workers = {bounds.max_workers} of vLLM with runtime = "local", where vLLM can be opened '
            'once: set runtime = "ray", or leave [autoscale] out'
        )
    return None


def _transport_suits_runtime(job: JobConfig) -> str | None:
    wrong = {"local": "object_store", "ray": "memory"}[job.runtime]
    if job.weights.transport == wrong:
        return (
            f'weights.transport = "{wrong}" does not exist with runtime = "{job.runtime}": '
            'set weights.transport = "auto"'
        )
    return None


def _algorithm_has_its_reward(job: JobConfig) -> str | None:
    if "reward" in job.algorithm.needs and not job.rewards and job.learn_from == "rollouts":
        name = type_name(job.algorithm)
        return f"algorithm.type = {name!r} needs a reward and rewards is empty: add a [[rewards]] table"
    return None


def _group_is_large_enough(job: JobConfig) -> str | None:
    least = job.algorithm.min_completions
    if job.train.completions_per_prompt < least and job.learn_from == "rollouts":
        return (
            f"train.completions_per_prompt = {job.train.completions_per_prompt} with algorithm.type = "
            f"{type_name(job.algorithm)!r}, which compares completions of one prompt: set it to {least} or more"
        )
    return None


def _engine_serves_what_travels(job: JobConfig) -> str | None:
    dtype = getattr(job.rollout.engine, "dtype", "auto")
    if dtype not in ("auto", job.serving_dtype):
        return (
            f"rollout.engine.dtype = {dtype!r} but weights travel as {job.serving_dtype}: leave the engine's dtype "
            f"out, or set weights.dtype = {dtype!r}"
        )
    return None


def _autoscale_has_room(job: JobConfig) -> str | None:
    bounds = job.autoscale
    if bounds and bounds.min_workers > bounds.max_workers:
        return (
            f"autoscale.min_workers = {bounds.min_workers} is above autoscale.max_workers = {bounds.max_workers}: "
            "raise max_workers or lower min_workers"
        )
    if bounds and not bounds.min_workers <= job.rollout.num_workers <= bounds.max_workers:
        return (
            f"rollout.num_workers = {job.rollout.num_workers} is outside of autoscale.min_workers = "
            f"{bounds.min_workers} and max_workers = {bounds.max_workers}: start between them"
        )
    return None


def _algorithm_learns_from_that(job: JobConfig) -> str | None:
    possible = job.algorithm.learns_from
    if job.learn_from not in possible:
        return (
            f"train.learn_from = {job.learn_from!r} with algorithm.type = {type_name(job.algorithm)!r}, which learns "
            f"from {' or '.join(possible)}: leave learn_from out, or choose another algorithm"
        )
    return None


def _data_has_no_age(job: JobConfig) -> str | None:
    if job.learn_from == "data" and job.train.max_staleness > 0:
        return (
            f"train.max_staleness = {job.train.max_staleness} in a job that learns from data, which no policy sampled: "
            "leave it out"
        )
    return None


def _four_bits_need_a_gpu(job: JobConfig) -> str | None:
    lora = job.learner.lora
    if lora and lora.quantise == "nf4" and not job.learner.gpus:
        return (
            'learner.lora.quantise = "nf4" with learner.gpus = 0, and 4-bit matrices are multiplied on a GPU: set '
            'learner.gpus = 1, or quantise = "none"'
        )
    return None


CHECKS: tuple[Any, ...] = (
    _algorithm_learns_from_that,
    _data_has_no_age,
    _autoscale_has_room,
    _four_bits_need_a_gpu,
    _ranks_need_ddp,
    _ranks_need_processes,
    _vllm_workers_need_processes,
    _transport_suits_runtime,
    _algorithm_has_its_reward,
    _group_is_large_enough,
    _engine_serves_what_travels,
)
