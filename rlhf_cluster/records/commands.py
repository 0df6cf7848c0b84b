"""What a person, a script or the API can ask of a running job; the driver obeys between two of its waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale(Command):
    """Have this many replicas of a role from now on."""

    role: str
    """`rollout`, `reward` or `reference`."""
    num_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscale(Command):
    """From now on a policy chooses the number of workers, never outside of these bounds. Ends with a `Scale`."""

    role: str
    """`rollout`."""
    min_workers: int
    max_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain(Command):
    """Retire one worker, its unfinished work handed over; the pool's size falls by one."""

    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart(Command):
    """Retire one worker, its unfinished work handed over, and have another take its place; the pool keeps its size."""

    worker_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Command):
    """Send out no new prompts; what is under way is finished and kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Command):
    """Go on after `Pause`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Command):
    """Write a checkpoint after the step under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop(Command):
    """End the job after the step under way, with a checkpoint."""
