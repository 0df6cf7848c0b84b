"""The sections of a job that belong to no role: training arithmetic, evaluation, checkpoints, weights, limits, Ray."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlhf_cluster.settings import Settings


class TrainSettings(Settings):
    """How much is generated for an optimizer step, and how old it may be."""

    num_steps: int = Field(ge=1)
    """Optimizer steps of the whole job."""
    prompts_per_step: int = Field(ge=1)
    """Rollout groups in one batch."""
    completions_per_prompt: int = Field(ge=1)
    """Size of a group."""
    max_staleness: int = Field(0, ge=0)
    """Most versions that a token may lag behind the version it trains. 0 is synchronous: generate, then learn."""


class EvaluationSettings(Settings):
    """Held-out evaluation, done by the rollout workers between steps."""

    every_steps: int | None = Field(None, ge=1)
    """Also evaluate after every N steps; before the first and after the last step it is always done."""
    num_prompts: int = Field(16, ge=1)
    """Taken from the start of `data.eval`."""
    completions_per_prompt: int = Field(4, ge=1)
    """Completions drawn for each."""
    temperature: float = Field(1.0, ge=0)
    """0 is greedy."""


class CheckpointSettings(Settings):
    """Policies written during the job, in Hugging Face format."""

    every_steps: int | None = Field(None, ge=1)
    """Also write after every N steps; after the last step one is always written."""
    keep: int = Field(2, ge=1)
    """Newest ones kept."""


class WeightsSettings(Settings):
    """How a new version reaches the rollout workers, and how strictly they check it."""

    transport: Literal["auto", "memory", "object_store", "filesystem"] = "auto"
    """`auto` is `memory` in the local runtime and `object_store` on Ray; `filesystem` needs a shared directory."""
    directory: str | None = None
    """Where the `filesystem` transport writes, in a folder named like the job's; None is the job's own directory."""
    dtype: Literal["bfloat16", "float32"] | None = None
    """Dtype that travels and is served; None is bfloat16 when the learner's precision is bf16, else float32."""
    probe_tolerance: float | None = Field(None, gt=0)
    """Largest mean absolute log-probability gap on the probe tokens; None is 0.3 for bfloat16 (whose logits are
    rounded to about 0.06) and 0.001 for float32."""


class LimitSettings(Settings):
    """Upper bounds on waiting. None of them is reached in a healthy job."""

    start_s: float = Field(600.0, gt=0)
    """For a role to start and load its model."""
    generate_s: float = Field(1800.0, gt=0)
    """Without any group arriving from a rollout worker that has work."""
    score_s: float = Field(600.0, gt=0)
    """For a reward server or reference scorer to answer."""
    update_s: float = Field(3600.0, gt=0)
    """For one optimizer step."""
    weights_s: float = Field(600.0, gt=0)
    """For one publish or adopt."""
    dropped_groups: int = Field(256, ge=1)
    """Groups in a row that teach nothing (all rewards equal) before the job gives up."""
    status_s: float = Field(30.0, gt=0)
    """For a role to say how it is."""
    close_s: float = Field(30.0, gt=0)
    """For a role to close."""


class RaySettings(Settings):
    """Which Ray cluster; used by `runtime = "ray"` alone."""

    address: str | None = None
    """`host:port` or `auto` of a running cluster; None starts a private one on this machine that ends with the job."""
    object_store_gib: float = Field(1.0, gt=0)
    """Shared memory of a private cluster's object store."""
    num_cpus: int | None = Field(None, ge=1)
    """CPUs that a private cluster pretends to have; None is as many as the roles reserve."""
