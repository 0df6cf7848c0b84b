"""What a job will ask of a machine, worked out before anything starts: batch arithmetic, CPUs, threads, memory, GPUs.

Estimates of memory are deliberately plain sums of what is known to be there; each formula stands beside its role.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from rlhf_cluster.config import JobConfig
from rlhf_cluster.errors import CannotFit
from rlhf_cluster.learner.settings import LearnerSettings
from rlhf_cluster.models.registry import resolve
from rlhf_cluster.models.size import ModelSize, model_size

GIB = 2**30
TORCH_PROCESS_BYTES = int(0.6 * GIB)
VLLM_PROCESS_BYTES = int(1.0 * GIB)
REWARD_PROCESS_BYTES = int(0.1 * GIB)
RAY_BYTES = int(0.4 * GIB)
ACTIVATION_BYTES = 34
"""Per token, layer and hidden unit in 16 bit, everything kept for the backward pass (arXiv:2205.05198, section 4)."""

NF4_BYTES = 0.516
"""Per parameter: 4 bits, and 8 bits for every 64 of them with double quantisation (arXiv:2305.14314, section 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to place roles on."""

    cpus: int
    gpus: int
    memory_bytes: int

    @classmethod
    def here(cls) -> Machine:
        gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
        return cls(cpus=psutil.cpu_count() or 1, gpus=gpus, memory_bytes=psutil.virtual_memory().total)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePlan:
    role: str
    num_replicas: int
    """With its spares."""
    num_spares: int
    cpus: float
    """Reserved by each replica."""
    gpus: float
    resources: Mapping[str, float]
    """Custom ones of a Ray cluster."""
    threads: int
    memory_bytes: int
    """Estimated for each replica, wherever it lies."""

    @property
    def host_bytes(self) -> int:
        """Of that, what the machine itself must hold: of a role on a GPU only its process."""
        return min(self.memory_bytes, TORCH_PROCESS_BYTES) if self.gpus else self.memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    job_name: str
    arithmetic: str
    staleness: str
    weights: str
    roles: tuple[RolePlan, ...]
    machine: Machine | None
    """None for a job on a running cluster, which is asked when the job connects."""

    @property
    def cpus(self) -> float:
        return sum(role.num_replicas * role.cpus for role in self.roles)

    @property
    def gpus(self) -> float:
        return sum(role.num_replicas * role.gpus for role in self.roles)

    @property
    def memory_bytes(self) -> int:
        """Of the machine, not of its GPUs."""
        return sum(role.num_replicas * role.host_bytes for role in self.roles) + RAY_BYTES

    def lines(self) -> list[str]:
        """For people."""
        rows = [f"{'role':<18}{'replicas':>9}{'cpus':>6}{'gpus':>6}{'threads':>9}{'memory':>11}"]
        rows += [
            f"{role.role:<18}{_count(role):>9}{role.cpus:>6g}{role.gpus:>6g}{role.threads:>9}"
            f"{_gib(role.memory_bytes):>11}{''.join(f'  {name}={n:g}' for name, n in role.resources.items())}"
            for role in self.roles
        ]
        here = "a running Ray cluster, whose size is checked when the job connects"
        if self.machine:
            here = (
                f"this machine: {self.machine.cpus} CPUs, {self.machine.gpus} GPUs, {_gib(self.machine.memory_bytes)}"
            )
        return [
            f"{self.job_name}: {self.arithmetic}",
            self.staleness,
            self.weights,
            *rows,
            f"in all {self.cpus:g} CPUs reserved, {self.gpus:g} GPUs, about {_gib(self.memory_bytes)}; on {here}",
        ]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "cpus": self.cpus, "gpus": self.gpus, "memory_bytes": self.memory_bytes}


def plan(job: JobConfig, machine: Machine | None = None) -> Plan:
    """The plan of `job`. Raises `CannotFit` for what this machine can never hold, `ModelError` without the model."""
    size = model_size(resolve(job.model))
    made = Plan(
        job_name=job.name,
        arithmetic=_arithmetic(job),
        staleness=_staleness(job),
        weights=_weights(job, size),
        roles=tuple(_roles(job, size)),
        machine=None if job.runtime == "ray" and job.ray.address else machine or Machine.here(),
    )
    _refuse(made)
    return made


def _arithmetic(job: JobConfig) -> str:
    train = job.train
    if not job.trains:
        return "nothing is trained: the policy answers prompts"
    if job.learn_from == "data":
        return (
            f"{train.prompts_per_step} examples = 1 optimizer step; {train.num_steps} steps = "
            f"{train.prompts_per_step * train.num_steps:,} examples of the data"
        )
    num_sequences = train.prompts_per_step * train.completions_per_prompt
    return (
        f"{train.prompts_per_step} prompts x {train.completions_per_prompt} completions = {num_sequences} sequences = "
        f"1 optimizer step; {train.num_steps} steps = {num_sequences * train.num_steps:,} completions of at most "
        f"{job.rollout.max_new_tokens} tokens"
    )


def _staleness(job: JobConfig) -> str:
    bound = job.train.max_staleness
    if job.learn_from == "data":
        return "from data: no policy sampled what is learned"
    if not job.trains:
        return "every answer is of the job's model, whose weights are published once"
    if bound == 0:
        return "synchronous: every completion is trained on by the version that sampled it"
    return (
        f"asynchronous: up to {job.train.prompts_per_step * (bound + 1)} prompts under way, none trained on more than "
        f"{bound} versions late"
    )


def _weights(job: JobConfig, size: ModelSize) -> str:
    num_bytes = size.num_parameters * (2 if job.serving_dtype == "bfloat16" else 4)
    if not job.generates:
        return f"{size.num_parameters:,} parameters stay with the learner: nothing is generated"
    return (
        f"{size.num_parameters:,} parameters travel as {job.serving_dtype} ({_mib(num_bytes)} a version) "
        f"by {job.transport}"
    )


def _roles(job: JobConfig, size: ModelSize) -> list[RolePlan]:
    estimates: dict[str, Callable[[], int]] = {
        "rollout worker": lambda: _rollout_bytes(job, size),
        "reward server": lambda: _reward_bytes(job),
        "reference scorer": lambda: _reference_bytes(job, size),
        "learner": lambda: _learner_bytes(job, size),
    }
    return [
        RolePlan(
            role=role,
            num_replicas=num_needed + num_spares,
            num_spares=num_spares,
            cpus=settings.cpus,
            gpus=settings.gpus,
            resources=settings.resources,
            threads=getattr(settings, "threads", 1),
            memory_bytes=estimates[role](),
        )
        for role, settings, num_needed, num_spares in _replicas(job)
    ]


def _replicas(job: JobConfig) -> list[tuple[str, Any, int, int]]:
    """Role, its section of the job, replicas that the job cannot start without, and spares."""
    rollout, reward, reference, learner = job.rollout, job.reward_server, job.reference, job.learner
    replicas: list[tuple[str, Any, int, int]] = []
    if job.generates:
        replicas.append(("rollout worker", rollout, rollout.num_workers, rollout.spares))
    if job.has_reward_servers:
        replicas.append(("reward server", reward, reward.num_workers, reward.spares))
    if "reference" in job.algorithm.needs:
        replicas.append(("reference scorer", reference, reference.num_workers, reference.spares))
    # A spare learner is a whole group of ranks.
    replicas.append(("learner", learner, learner.num_ranks, learner.num_ranks * learner.spare))
    return replicas


def _rollout_bytes(job: JobConfig, size: ModelSize) -> int:
    """Process + weights + keys and values. A CPU build of vLLM keeps a repacked copy of the weights while it loads."""
    engine = job.rollout.engine
    if engine.type == "scripted":
        return REWARD_PROCESS_BYTES
    weight_bytes = size.num_parameters * (2 if job.serving_dtype == "bfloat16" else 4)
    if engine.type == "transformers":
        return TORCH_PROCESS_BYTES + weight_bytes
    return VLLM_PROCESS_BYTES + 2 * weight_bytes + int((engine.kv_cache_gib or 1.0) * GIB)


def _reward_bytes(job: JobConfig) -> int:
    """The server's process and its own, and the reward models in 32 bit where their size is known."""
    paths = [Path(reward.path) for reward in job.rewards if reward.type == "model"]
    models = sum(TORCH_PROCESS_BYTES + 4 * model_size(path).num_parameters for path in paths if path.is_dir())
    return (1 + job.reward_server.num_processes) * REWARD_PROCESS_BYTES + models


def _reference_bytes(job: JobConfig, size: ModelSize) -> int:
    return TORCH_PROCESS_BYTES + size.num_parameters * (2 if job.reference.dtype == "bfloat16" else 4)


def _learner_bytes(job: JobConfig, size: ModelSize) -> int:
    """Process + 16 bytes a trained parameter (weight, gradient, two moments) + frozen weights + activations + logits
    + one flat version on its way out."""
    learner = job.learner
    layers = learner.train_last_layers or size.num_layers
    trained = _trained_parameters(learner, size, layers=layers)
    width = 2 if learner.dtype == "bfloat16" else 4
    kept_layers = math.sqrt(layers) if learner.gradient_checkpointing else layers
    activations = ACTIVATION_BYTES * width / 2 * learner.microbatch_tokens * size.hidden_size * kept_layers
    frozen = _frozen_bytes(learner, size, width=width) if trained < size.num_parameters else 0.0
    if job.algorithm.model == "policy_and_critic" and learner.critic.trunk == "own":
        trained, activations, frozen = 2 * trained, 2 * activations, 2 * frozen
    logits = min(learner.logit_chunk_rows, learner.microbatch_tokens) * size.vocab_size * (width + 4)
    version = size.num_parameters * (2 if job.serving_dtype == "bfloat16" else 4)
    return int(TORCH_PROCESS_BYTES + 16 * trained + frozen + activations + logits + version)


def _trained_parameters(learner: LearnerSettings, size: ModelSize, *, layers: int) -> int:
    """Of one network. An adapter of a matrix [O, I] has rank * (O + I); modules trained whole besides are small."""
    if learner.lora is not None:
        wanted = learner.lora.target_modules
        adapted = [shape for name, shape in size.layer_matrices if wanted == "all-linear" or name in wanted]
        return layers * learner.lora.rank * sum(map(sum, adapted))
    return size.num_parameters if learner.train_last_layers is None else layers * size.layer_parameters


def _frozen_bytes(learner: LearnerSettings, size: ModelSize, *, width: int) -> float:
    """Of one network: with adapters all of it, otherwise what lies below the layers that are trained."""
    if learner.lora is None:
        return width * (size.num_parameters - (learner.train_last_layers or 0) * size.layer_parameters)
    in_layers = size.num_layers * size.layer_parameters
    return width * (size.num_parameters - in_layers) + in_layers * (
        NF4_BYTES if learner.lora.quantise == "nf4" else width
    )


def _refuse(made: Plan) -> None:
    machine = made.machine
    if machine is None:
        return
    if made.gpus > machine.gpus:
        raise CannotFit(
            f"{made.job_name}: the roles reserve {made.gpus:g} GPUs and this machine has {machine.gpus}: set gpus = 0 "
            "for the roles that can do without, or name a cluster with ray.address"
        )
    if made.memory_bytes > machine.memory_bytes:
        largest = max(made.roles, key=lambda role: role.num_replicas * role.host_bytes)
        raise CannotFit(
            f"{made.job_name}: the roles need about {_gib(made.memory_bytes)} and this machine has "
            f"{_gib(machine.memory_bytes)}; the most goes to {largest.num_replicas} x {largest.role} "
            f"({_gib(largest.host_bytes)} each): use fewer of them, a smaller model, learner.train_last_layers, or a "
            "smaller learner.microbatch_tokens"
        )


def reservations(job: JobConfig, *, spares: bool) -> Mapping[str, float]:
    """What all roles of the job reserve together, as Ray names it. A job can start without spares."""
    wanted: Counter[str] = Counter(CPU=0, GPU=0)
    for _, settings, num_needed, num_spares in _replicas(job):
        each = {"CPU": settings.cpus, "GPU": settings.gpus, **settings.resources}
        wanted.update({name: amount * (num_needed + spares * num_spares) for name, amount in each.items()})
    return wanted


def _count(role: RolePlan) -> str:
    """`3`, or `2+1` with a spare."""
    return f"{role.num_replicas - role.num_spares}+{role.num_spares}" if role.num_spares else f"{role.num_replicas}"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB"


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
