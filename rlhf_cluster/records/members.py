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
    num_steps: int
    num_in_flight: int
    num_complete: int
    waiting_for: str
    """What the next batch waits for, in words."""
    bottleneck: str
    """Who waited for whom lately, in words; see `flow/bottleneck.py`."""
    pools: tuple[PoolView, ...]
