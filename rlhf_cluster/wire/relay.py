"""Between a job's relay and the service. A relay speaks for one attempt and is told when another took its place."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rlhf_cluster.wire.base import Message, Request

MAX_ENTRIES = 500
MAX_LINES = 1000


class Register(Request):
    host: str = Field(max_length=256)
    process_id: int


class Registered(Message):
    job_id: str
    attempt: int
    job_dir: str
    """Where the job lies, on a disk that every node which may drive it sees."""
    config: dict[str, Any]
    """The whole job, with the pools as they are wanted now."""
    bundle_sha256: str | None
    num_entries: int
    """Of the journal that the service has; it goes on with this one."""
    sample_files: list[str]
    """That it has."""
    log_offsets: dict[str, int]
    """Of the newest line of each component that it has: of its first byte."""
    lease_s: float
    """The driver counts as lost when nothing is heard for so long."""


class LogLine(Request):
    component: str = Field(max_length=64)
    offset: int
    """Of its first byte in the component's file."""
    line: str
    time_s: float


class Ingest(Request):
    """What is new, and a sign of life also when nothing is. Sent again, it changes nothing."""

    first_entry: int
    """Number of the first of `entries` in the journal, from 0."""
    entries: list[dict[str, Any]] = Field(max_length=MAX_ENTRIES)
    view: dict[str, Any] | None = None
    """The newest `JobView`."""
    lines: list[LogLine] = Field(default_factory=list, max_length=MAX_LINES)


class Ingested(Message):
    num_entries: int
    """That the service has now; what was sent beyond a gap is not among them."""


class Delivered(Message):
    command_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")
    body: dict[str, Any]
    expires_s: float | None


class Commands(Message):
    commands: list[Delivered]
    kill: bool = False
    """Whether the job is to end at once, without another step or checkpoint."""


class Answered(Request):
    ok: bool
    text: str = Field(max_length=10_000)


class Ended(Request):
    """How the driver's process ended, told by the process that watched it."""

    outcome: Literal["succeeded", "failed", "interrupted"]
    exit_code: int
    """The negative number of the signal that ended it, as in Python's own."""
    message: str = Field(max_length=10_000)
    may_be_retried: bool
    last_lines: list[str] = Field(default_factory=list, max_length=200)
