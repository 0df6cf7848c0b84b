"""The sections of a job that belong to no role: training arithmetic, evaluation, checkpoints, weights, limits, Ray."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlhf_cluster.settings import Settings


class TrainSettings(Settings):
    """What a step learns from, how much of it, and how old it may be."""

    learn_from: Literal["rollouts", "data"] | None = None
    """`rollouts`: completions that the policy generates for the prompts of `data.train`. `data`: those that
    `data.train` holds, demonstrations or preferences. None is what the algorithm is for."""
    num_steps: int = Field(ge=0, le=2**31 - 1)
    """Steps of the whole job; 0 in one that only generates."""
    prompts_per_step: int = Field(ge=1)
    """Groups in one batch: rollout groups, or examples of the data."""
    completions_per_prompt: int = Field(1, ge=1)
    """Size of a rollout group."""
    max_staleness: int = Field(0, ge=0)
    """Most versions that a token may lag behind the version it trains. 0 is synchronous: generate, then learn."""
    learn_early: bool = True
    """Compute the gradient of the oldest groups of a batch while the others are still generated. The step that comes
    of it is the same to the bit. Passed over where an algorithm credits the groups of a batch together, as `ppo` and
    `reinforce_pp` do, or makes several updates of a batch."""


class EvaluationSettings(Settings):
    """Held-out evaluation, done by the rollout workers between steps."""

    every_steps: int | None = Field(None, ge=1)
    """Also evaluate after every N steps; before the first and after the last step it is always done."""
    num_prompts: int = Field(16, ge=1)
    """Taken from the start of `data.eval`."""
    completions_per_prompt: int = Field(4, ge=1)
    """Completions drawn for each."""
    num_examples: int = Field(256, ge=1)
    """Recorded examples taken from the start of `data.eval`, by a job that learns from data."""
    temperature: float = Field(1.0, ge=0)
    """0 is greedy."""
    reference: bool = False
    """Have the reference score the answers too, for the KL. Starts reference scorers where the algorithm needs none."""
    pass_at_k: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Report pass@k for each of these: the chance that one of k completions passes."""
    pass_reward: str = "reward"
    """The reward by which a completion passes: a name of `[[rewards]]`, or `reward` for their weighted sum."""
    pass_threshold: float = 1.0
    """A completion passes when it is worth at least this."""


class CheckpointSettings(Settings):
    """Policies written during the job, in Hugging Face format."""

    every_steps: int | None = Field(25, ge=1)
    """Write after every N steps, while training goes on; after the last step one is always written. A lost learner
    loads the newest one and replays the batches since."""
    keep: int = Field(2, ge=1)
    """Newest ones kept."""
    keep_best: int = Field(0, ge=0)
    """Kept besides those: the best by `best_by`."""
    best_by: str = "eval/reward_mean"
    """A metric of the evaluation at the checkpoint's own step; larger is better."""


class WeightsSettings(Settings):
    """How a new version reaches the rollout workers, and how strictly they check it."""

    transport: Literal["auto", "memory", "object_store", "filesystem"] = "auto"
    """`auto` is `memory` in the local runtime and `object_store` on Ray; `filesystem` needs a shared directory."""
    directory: str | None = None
    """Where the `filesystem` transport writes, in a folder named like the job's; None is the job's own directory."""
    dtype: Literal["bfloat16", "float32"] | None = None
    """Dtype that travels and is served; None is that of the learner's arithmetic."""
    full_every: int = Field(1, ge=1)
    """Every N-th version travels whole, those between as what has changed. 1 is best on one machine, where a copy is
    cheaper than a comparison; more suits workers behind a network."""
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


class RecoverySettings(Settings):
    """What is done about roles that die, hang or answer nonsense."""

    max_restarts: int = Field(10, ge=0)
    """Replacements of a role's replicas within `window_s`; past that the job ends and names the culprit."""
    window_s: float = Field(600.0, gt=0)
    """See `max_restarts`."""
    backoff_s: float = Field(1.0, ge=0)
    """Wait before the second replacement in a row, doubled for every further one; the first comes at once."""
    max_backoff_s: float = Field(60.0, gt=0)
    """Longest such wait."""
    hedge_s: float = Field(15.0, gt=0)
    """A rollout worker without a token for this long has its prompts sent to others too; the first answer counts. The
    bound rises by itself where tokens are slow."""
    stall_s: float = Field(120.0, gt=0)
    """A rollout worker without a token for this long is taken for hung and replaced."""
    learner_stall_s: float = Field(1200.0, gt=0)
    """The same for a learner that is updating, whose sign of progress is a finished microbatch."""
    unresponsive_s: float = Field(60.0, gt=0)
    """A role that does not tell its status for this long is taken for hung."""
    max_deaths: int = Field(2, ge=1)
    """A prompt that was on this many workers when they died runs alone from then on, and is quarantined if that worker
    dies too."""


class AutoscaleSettings(Settings):
    """Bounds of the policy that sets the number of rollout workers; see `flow/scaling.py`."""

    min_workers: int = Field(1, ge=1)
    """Never fewer."""
    max_workers: int = Field(ge=1)
    """Never more."""


class RaySettings(Settings):
    """Which Ray cluster; used by `runtime = "ray"` alone."""

    address: str | None = None
    """`host:port` or `auto` of a running cluster; None starts a private one on this machine that ends with the job."""
    object_store_gib: float = Field(1.0, gt=0)
    """Shared memory of a private cluster's object store."""
    num_cpus: int | None = Field(None, ge=1)
    """CPUs that a private cluster pretends to have; None is as many as the roles reserve."""
