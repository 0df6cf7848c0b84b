"""What a running job says has happened. The driver emits these; observers turn them into journals, panels and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlhf_cluster.records.rollout import Invalid, RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    time_s: float
    """Unix time."""
    step: int
    """Optimizer steps finished when it happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    job_name: str
    job_dir: Path
    num_steps: int
    first_step: int
    """0, or where a resumed job goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase(Event):
    """A named stretch of the start-up or the end, such as `starting rollout workers`."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone(Event):
    version: int
    metrics: Mapping[str, float]
    """By metric name, `role/what_unit`."""
    groups: tuple[RolloutGroup, ...]
    """What the step was trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    metrics: Mapping[str, float]
    """`eval/reward_mean`, `eval/reward/<name>`, `eval/completion_length_mean`, ..."""
    groups: tuple[RolloutGroup, ...]
    """Held-out prompts with the policy's answers."""
    fingerprint: str = ""
    """Of the weights that have answered; empty where none did."""
    scored: tuple[RolloutGroup, ...] = ()
    """Held-out preferences where a reward model is trained: `rewards` says which is preferred, `breakdown["score"]`
    what the model gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated(Event):
    """How far a job that generates has come: it tells now and then, and at the end."""

    task: str
    """`preferences` or `constitution`."""
    num_done: int
    """Prompts that are done, those of which nothing was kept included."""
    num_total: int
    metrics: Mapping[str, float]
    """Of everything in the file so far, by metric name, `<task>/what`."""
    path: Path
    """The file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDropped(Event):
    """A group that will not be trained on; another prompt takes its place."""

    request_id: int
    prompt_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardFailed(Event):
    request_id: int
    prompt_id: str
    invalid: Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved(Event):
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerChanged(Event):
    """A replica of a role joined, left, was lost or replaced."""

    role: str
    worker_id: str
    state: str
    """The state it is in now; see `flow/pool.py`."""
    reason: str = ""
    """Why, in words; for a lost one what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptQuarantined(Event):
    """A prompt that workers die of; it is left out from now on."""

    request_id: int
    prompt_id: str
    evidence: tuple[str, ...]
    """One line for each worker that was lost with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerRecovered(Event):
    """A learner group was lost and another took its place, at the same step."""

    reason: str
    respawn_s: float
    load_s: float
    replay_s: float
    num_replayed: int
    """Batches replayed from the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something a person should know, in one sentence."""

    level: str
    """`info`, `warning` or `error`."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardTripped(Notice):
    """A guard saw learning go wrong; `text` says what, with numbers."""

    guard: str
    """See `flow/guards.py`."""
    deed: str
    """`stop` or `warn`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded(Event):
    outcome: str
    """`succeeded`, `failed` or `interrupted`."""
    message: str
    job_dir: Path
    checkpoint: Path | None
    """The newest one, or None when none was written."""
