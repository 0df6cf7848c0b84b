"""How the driver sees the replicas of a role: for `rlhf status`, the dashboard and the scaling policy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """One replica."""

    role: str
    """`rollout worker`, `reward server`, `reference scorer` or `learner`."""
    worker_id: str
    """Never used again for another replica, so it is the incarnation too."""
    state: str
    """`pending` (no machine for it yet), `starting`, `spare`, `adopting`, `serving`, `draining` or `lost`."""
    reason: str = ""
    """Why it is pending or was lost."""
    version: int = -1
    num_in_flight: int = 0
    tokens_in_flight: int = 0
    """Generated so far by requests that are not finished; 0 where the engine does not say."""
    tokens_per_s: float = 0.0
    busy_share: float = 0.0
    """Share of the time since the last view that it worked, 0 to 1."""
    rss_bytes: int = 0
    process_id: int = 0
    since_s: float = 0.0
    """Unix time at which it entered this state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """The replicas of one role together."""

    role: str
    desired: int
    num_restarts: int
    """Replicas replaced since the job started."""
    last_error: str
    members: tuple[MemberView, ...]
    mode: str = "manual"
    """`auto` while a policy chooses `desired`, between the two bounds that follow."""
    min_workers: int = 0
    max_workers: int = 0
    """0 in both without a policy."""
    reason: str = ""
    """What the policy said last; without one in power, why it would recommend its number."""
    recommended: int = 0
    """Replicas that the last steps ask for, before any bounds; 0 where nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleTime:
    """What a role did over the last steps: shares of the time, which sum to 1."""

    role: str
    """`learner`, `rollout`, `reward` or `reference`."""
    busy: float
    """On average over its replicas."""
    waiting: float
    """The learner for rollouts, the others for something to do."""
    adopting: float = 0.0
    """The learner for the workers to take over the weights."""
    other: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """All that `rlhf status` shows; written to `status.json` of the job directory about once a second."""

    time_s: float
    epoch: int
    job_name: str
    state: str
    """`starting`, `running`, `paused`, `stopping`, or the outcome of `JobEnded`."""
    phase: str
    step: int
    """Of `num_steps`, counted in `unit`."""
    num_steps: int
    num_in_flight: int
    num_complete: int
    waiting_for: str
    """What the next batch waits for, in words."""
    bottleneck: str
    """Who waited for whom lately, in words; see `flow/bottleneck.py`."""
    pools: tuple[PoolView, ...]
    time_split: tuple[RoleTime, ...] = ()
    """The same in numbers, the learner first; empty before the first step."""
    guards: str = ""
    """What the guards see go wrong, in words; empty where all is well."""
    unit: str = "steps"
    """`steps` of the optimizer, or `prompts` of a job that only generates."""
