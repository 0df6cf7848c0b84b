"""`JobConfig`: everything a job is, with the checks that look at two sections at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from rlhf_cluster.algorithms import SFT, AlgorithmSettings
from rlhf_cluster.config.cross_checks import CHECKS
from rlhf_cluster.config.generation import ConstitutionSettings, PreferenceSettings
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
from rlhf_cluster.flow.guards import GuardSettings
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
    algorithm: AlgorithmSettings = SFT()
    """`type` names a built-in one or an import path; the rest are its hyper-parameters. A job that only generates has
    none."""
    learner: LearnerSettings = LearnerSettings()
    """The ranks that train."""
    train: TrainSettings = TrainSettings(num_steps=0, prompts_per_step=1)
    """Batch arithmetic and staleness; left out, nothing is trained."""
    preferences: PreferenceSettings | None = None
    """Collects preference pairs from the policy's answers, after the last step where there are any."""
    constitution: ConstitutionSettings | None = None
    """Has the policy's answers criticised and revised by the principles of a constitution, likewise."""
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
    guards: GuardSettings = GuardSettings()
    """What ends the job, or is warned about, because learning goes wrong."""
    ray: RaySettings = RaySettings()
    """Which Ray cluster."""
    observers: tuple[str, ...] = ("journal", "console", "tensorboard", "samples", "curve", "held_out")
    """Who listens to the job's events: built-in names or import paths."""

    @property
    def serving_dtype(self) -> str:
        """Dtype in which weights travel and are served."""
        return self.weights.dtype or self.learner.dtype

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
        return "rollouts" if not self.trains else self.train.learn_from or self.algorithm.learns_from[0]

    @property
    def trains(self) -> bool:
        return self.train.num_steps > 0

    @property
    def unit(self) -> Literal["steps", "prompts"]:
        """What its progress is counted in."""
        return "steps" if self.trains else "prompts"

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
    def has_reference(self) -> bool:
        """To learn with, or to measure in evaluations how far from it the policy is."""
        return "reference" in self.algorithm.needs or (self.evaluation.reference and self.generates)

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
