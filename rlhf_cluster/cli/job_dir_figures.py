"""Metrics and samples of a job directory, from its journal, in the messages with which a service tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_cluster.driver.observers import journal
from rlhf_cluster.wire.figures import Latest, Sample, Series

MEASURED = ("StepDone", "Evaluated")


def latest(job_dir: Path) -> Latest:
    """The newest value of every metric; step -1 where there is none."""
    values: dict[str, Any] = {}
    step = -1
    for entry in _measured(job_dir):
        values |= entry["metrics"]
        step = max(step, entry["step"])
    return Latest(values=dict(sorted(values.items())), step=step)


def series(job_dir: Path, keys: Sequence[str]) -> list[Series]:
    """One for each key. A step that a resumed job did again counts as it was the last time."""
    points: dict[str, dict[int, Any]] = {key: {} for key in keys}
    for entry in _measured(job_dir):
        for key in keys:
            if key in entry["metrics"]:
                points[key][entry["step"]] = entry["metrics"][key]
    return [
        Series(key=key, steps=sorted(of_key), values=[of_key[step] for step in sorted(of_key)])
        for key, of_key in points.items()
    ]


def samples(job_dir: Path) -> list[Sample]:
    """Those of evaluations, which the journal keeps; the newest first."""
    return [sample for entry in reversed(list(_measured(job_dir))) for sample in _samples(entry)]


def _measured(job_dir: Path) -> Iterator[Mapping[str, Any]]:
    for entry in journal.read(job_dir):
        if entry.get("event") in MEASURED and isinstance(entry.get("metrics"), dict):
            yield entry


def _samples(entry: Mapping[str, Any]) -> list[Sample]:
    return [
        Sample(
            sample_id=number,
            kind="eval",
            step=entry["step"],
            request_id=number,
            prompt_id=each["prompt_id"],
            prompt=each["prompt"],
            completion=each["completion"],
            reward=each["reward"],
            breakdown={},
            num_tokens=0,
            body={},
        )
        for number, each in enumerate(entry.get("samples", ()))
    ]
