"""What becomes of a submitted job: when to begin an attempt, when one is lost, and when the job has ended. Sans IO.

    queued -> launching -> running <-> paused -> succeeded | failed | cancelled
                  ^___________|                     (an attempt that failed or was lost is followed by another)

Three things are known of an attempt, and none is trusted alone: what its driver reported, its lease, which the driver
renews while it lives, and what Ray says of the submission. Ray's word counts only where the lease has run out: it
calls jobs failed that have succeeded, and running ones that are gone, when the head of a cluster was replaced.

A job may have so many attempts that failed. One that somebody interrupted, or whose cluster went away under it, does
not count: the next one goes on from its checkpoint. That too has a bound, far away, for a job that takes its cluster
down with it each time.
"""

from __future__ import annotations

from dataclasses import dataclass

RUN, CANCEL, KILL = "run", "cancel", "kill"
OVER = ("succeeded", "failed", "cancelled")
ABSENT = "ABSENT"
MAX_EXCUSED = 20
"""Attempts of one job that do not count."""
GONE = ("STOPPED", "SUCCEEDED", "FAILED", ABSENT)
"""What Ray says of a submission that has no process any more; ABSENT where Ray does not know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    number: int
    state: str
    """`created` (not yet submitted), `submitted`, `running` (its driver has registered), `ended` or `lost`."""
    created_s: float
    lease_until_s: float | None = None
    """None before its driver has registered."""
    outcome: str | None = None
    """`succeeded`, `failed` or `interrupted`, as reported."""
    message: str = ""
    ray_status: str | None = None
    """PENDING, RUNNING, one of `GONE`, or None where Ray could not be asked."""
    may_be_retried: bool = True
    """False where the job itself is at fault: another attempt would end the same way."""
    was_taken_away: bool = False
    """It was excused: see `Excuse`."""

    @property
    def counts(self) -> bool:
        return is_held(state=self.state, outcome=self.outcome, was_taken_away=self.was_taken_away)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    lease_s: float = 45.0
    launch_s: float = 600.0
    """From the submission until the driver registers."""
    cancel_s: float = 120.0
    """For a job to end by itself when it is cancelled, with a checkpoint; then Ray stops it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    wanted: str
    """`run`, `cancel` or `kill`."""
    wanted_since_s: float
    max_attempts: int
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """Make attempt `number` if there is none, and submit it."""

    number: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The attempt is lost: fence it, and have Ray stop what may be left of it."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Excuse:
    """The attempt's end does not count."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class AskToStop:
    """Tell the driver to end after its step."""

    number: int


@dataclass(frozen=True, slots=True)
class StopByForce:
    """Have Ray stop the submission."""

    number: int


@dataclass(frozen=True, slots=True)
class End:
    """The job is over."""

    state: str
    message: str


Action = Begin | GiveUp | Excuse | AskToStop | StopByForce | End


def is_held(*, state: str, outcome: str | None, was_taken_away: bool) -> bool:
    """Whether an attempt is over by a failure that the job has to answer for."""
    is_over = state in ("ended", "lost")
    return is_over and outcome not in ("succeeded", "interrupted") and not was_taken_away


def next_action(job: JobFacts, *, now_s: float, bounds: Bounds) -> Action | None:
    """What to do now; None to wait. It is asked again after each thing done, so one is enough."""
    newest = job.attempts[-1] if job.attempts else None
    if newest is None:
        return Begin(1) if job.wanted == RUN else End("cancelled", "cancelled before it began")
    if newest.state == "created":
        # Whoever made it may have died before or after it was submitted; submitting it twice is submitting it once.
        return Begin(newest.number) if job.wanted == RUN else GiveUp(newest.number, "cancelled before it was submitted")
    if newest.state == "ended":
        return _after(job, newest)
    if newest.state == "lost":
        return _again(job, newest)
    if why := _why_lost(newest, now_s=now_s, bounds=bounds):
        return GiveUp(newest.number, why)
    if job.wanted == RUN:
        return None
    late = now_s - job.wanted_since_s >= bounds.cancel_s
    return StopByForce(newest.number) if job.wanted == KILL or late else AskToStop(newest.number)


def _after(job: JobFacts, attempt: Attempt) -> Action:
    if attempt.outcome == "succeeded":
        return End("succeeded", attempt.message)
    if job.wanted != RUN:
        return End("cancelled", attempt.message)
    if attempt.outcome == "interrupted" or attempt.may_be_retried:
        return _again(job, attempt)
    return End("failed", attempt.message)


def _again(job: JobFacts, attempt: Attempt) -> Action:
    if job.wanted != RUN:
        return End("cancelled", attempt.message)
    if attempt.counts and (why := _why_excused(attempt)):
        return Excuse(attempt.number, why)
    num_held = sum(each.counts for each in job.attempts)
    if num_held >= job.max_attempts:
        return End("failed", f"{attempt.message} ({num_held} of at most {job.max_attempts} attempts have failed)")
    if len(job.attempts) - num_held >= MAX_EXCUSED:
        return End("failed", f"{attempt.message} (the {MAX_EXCUSED}th attempt that was interrupted from outside)")
    return Begin(attempt.number + 1)


def _why_excused(attempt: Attempt) -> str | None:
    """Ray knows of every submission, however it ended, as long as the cluster is the one that it was submitted to."""
    if attempt.ray_status is None:
        return "its cluster cannot be reached"
    return "its cluster is gone: the one that is there does not know it" if attempt.ray_status == ABSENT else None


def _why_lost(attempt: Attempt, *, now_s: float, bounds: Bounds) -> str | None:
    if attempt.lease_until_s is not None:
        if now_s < attempt.lease_until_s:
            return None
        said = "" if attempt.ray_status is None else f"; Ray says {attempt.ray_status}"
        return f"its driver has said nothing for {bounds.lease_s:g} s{said}"
    if attempt.ray_status in GONE:
        return f"its driver ended before it registered: Ray says {attempt.ray_status}"
    if now_s - attempt.created_s >= bounds.launch_s:
        return f"its driver did not register within {bounds.launch_s:g} s: {_pending(attempt)}"
    return None


def _pending(attempt: Attempt) -> str:
    if attempt.ray_status is None:
        return "Ray cannot be reached"
    return f"Ray says {attempt.ray_status}"
