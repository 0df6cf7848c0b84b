"""What a job measures, samples, writes and says: metrics, completions, checkpoints, events and logs."""

from __future__ import annotations

from typing import Any

from rlhf_cluster.wire.base import Figure, Message


class Latest(Message):
    """The newest value of every metric."""

    values: dict[str, Figure]
    step: int


class Series(Message):
    """Columns of equal length; where steps were merged, the least, mean and greatest value of each stretch."""

    key: str
    steps: list[int]
    values: list[Figure]
    lows: list[Figure] | None = None
    highs: list[Figure] | None = None


class SeriesSet(Message):
    series: list[Series]
    last_step: int
    """Ask with `after_step` of this for what came since. The newest step comes once more then: an evaluation follows
    the step it is about. Points of a later answer replace those of the same steps."""


class Sample(Message):
    sample_id: int
    kind: str
    """`step` or `eval`."""
    step: int
    request_id: int
    """Completions of one prompt share it."""
    prompt_id: str
    prompt: str
    completion: str
    reward: Figure
    breakdown: dict[str, Figure]
    num_tokens: int
    body: dict[str, Any]
    """Every other column of the job's sample file."""


class SampleStep(Message):
    """A step, or an evaluation, of which there are samples."""

    kind: str
    step: int
    num_samples: int


class Event(Message):
    event_id: int
    topic: str
    """`jobs`, `metrics`, `workers` or `logs`."""
    job_id: str
    time_s: float
    step: int
    kind: str
    level: str
    text: str
    """In words."""
    body: dict[str, Any]


class LogLine(Message):
    line_id: int
    component: str
    time_s: float
    line: str


class Checkpoint(Message):
    step: int
    path: str
    time_s: float
