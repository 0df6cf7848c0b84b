"""Jobs, their attempts, commands to them, and the pools that can be scaled while they run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rlhf_cluster.wire.base import Figure, Message, Request

JobState = Literal["queued", "launching", "running", "paused", "stopping", "succeeded", "failed", "cancelled"]
OVER = ("succeeded", "failed", "cancelled")
AttemptState = Literal["created", "submitted", "running", "ended", "lost"]
CommandState = Literal["pending", "delivered", "done", "refused", "expired"]
PoolName = Literal["rollout", "reward", "reference", "learner"]
Labels = dict[str, str]


class Submit(Request):
    """A job to run: a recipe's name or a job file's text, and what differs from it."""

    recipe: str | None = None
    source: str | None = Field(None, max_length=1_000_000)
    """A job file, TOML or YAML."""
    format: Literal["toml", "yaml"] = "toml"
    overrides: list[str] = Field(default_factory=list, max_length=200)
    """`train.num_steps=100`, as on the command line."""
    name: str | None = Field(None, min_length=1, max_length=128)
    labels: Labels = Field(default_factory=dict)
    notes: str = Field("", max_length=10_000)
    max_attempts: int = Field(3, ge=1, le=100)
    """That may fail. One that was interrupted, or whose cluster went away, does not count."""
    bundle_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Of an upload with the job's own code."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Submit:
        if (self.recipe is None) == (self.source is None):
            raise ValueError("give either recipe or source")
        return self


class ChangeJob(Request):
    name: str | None = Field(None, min_length=1, max_length=128)
    labels: Labels | None = None
    notes: str | None = Field(None, max_length=10_000)


class Job(Message):
    """One line of a list."""

    job_id: str
    name: str
    owner: str
    labels: Labels
    state: JobState
    message: str
    step: int
    """Of `num_steps`, counted in `unit`."""
    num_steps: int
    """0 while it is not known."""
    unit: Literal["steps", "prompts"] = "steps"
    """Steps of the optimizer, or prompts of a job that only generates."""
    created_s: float
    started_s: float | None
    ended_s: float | None


class RoleTime(Message):
    """What a role did over the last steps: shares of the time, which sum to 1; see `records/members.py`."""

    role: str
    busy: Figure
    waiting: Figure
    adopting: Figure
    other: Figure


class JobDetail(Job):
    notes: str
    source: str
    config: dict[str, Any]
    changed: dict[str, Any]
    """What differs from the defaults, by dotted key."""
    max_attempts: int
    num_attempts: int
    phase: str = ""
    waiting_for: str = ""
    bottleneck: str = ""
    """Who waited for whom lately, in words."""
    time_split: list[RoleTime] = Field(default_factory=list)
    """The same in numbers, the learner first; empty before the first step."""
    seen_s: float | None = None
    """When its driver was heard last."""


class Attempt(Message):
    number: int
    state: AttemptState
    outcome: str | None
    was_taken_away: bool
    """Its cluster went away under it, so that its end does not count against the job."""
    exit_code: int | None
    message: str
    host: str | None
    submission_id: str
    created_s: float
    ended_s: float | None


class Command(Message):
    """Something asked of a running job."""

    command_id: str
    job_id: str
    body: dict[str, Any]
    """`{"command": "Scale", "role": "rollout", "num_workers": 3}`"""
    state: CommandState
    answer: str
    created_by: str
    created_s: float
    answered_s: float | None


class SetPool(Request):
    """How many replicas a pool should have, or between which numbers a policy may choose."""

    mode: Literal["manual", "auto"] = "manual"
    replicas: int | None = Field(None, ge=1, le=10_000)
    min_replicas: int | None = Field(None, ge=1, le=10_000)
    max_replicas: int | None = Field(None, ge=1, le=10_000)

    @model_validator(mode="after")
    def _mode_has_its_numbers(self) -> SetPool:
        if self.mode == "manual" and self.replicas is None:
            raise ValueError('mode = "manual" needs replicas')
        if self.mode == "auto" and (self.min_replicas is None or self.max_replicas is None):
            raise ValueError('mode = "auto" needs min_replicas and max_replicas')
        if self.mode == "auto" and (self.min_replicas or 1) > (self.max_replicas or 1):
            raise ValueError(f"min_replicas = {self.min_replicas} is more than max_replicas = {self.max_replicas}")
        return self


class Worker(Message):
    """One replica as its driver sees it; see `records/members.py`."""

    worker_id: str
    pool: PoolName
    state: str
    reason: str
    version: int
    lag: int
    """Weight versions behind the learner."""
    num_in_flight: int
    tokens_in_flight: int
    tokens_per_s: Figure
    busy_share: Figure
    rss_bytes: int
    since_s: float


class Pool(Message):
    pool: PoolName
    is_elastic: bool
    mode: Literal["manual", "auto"]
    replicas: int
    """Wanted; with `auto` what the policy has chosen last."""
    min_replicas: int | None
    max_replicas: int | None
    reason: str = ""
    """What the policy said last; with `manual`, why it would recommend its number."""
    recommended: int | None = None
    """Replicas that the last steps ask for, before any bounds; null where nothing is known."""
    generation: int
    """Rises with every change of what is wanted."""
    observed_generation: int
    """The newest one that the driver has obeyed."""
    num_serving: int
    num_pending: int
    num_draining: int
    num_restarts: int
    pending_reason: str
    last_error: str
    workers: list[Worker]


class Checked(Message):
    """A job that was not submitted: its whole config, and what it would reserve."""

    config: dict[str, Any]
    changed: dict[str, Any]
    lines: list[str]
    """The plan in words."""


class Recipe(Message):
    name: str
    description: str
    source: str
    """Its job file."""
