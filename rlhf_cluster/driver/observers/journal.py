"""The journal: one JSON object a line for everything that happened, in `journal.jsonl` of the job directory.

Append-only and flushed after every line, so it is whole up to the moment a process is killed; a line torn by a kill is
cut off when the job resumes. Token arrays stay out; rewards, lengths and the texts of evaluations are in. Figures
that are not finite become null, because JSON has no word for them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.driver.json_lines import cut_torn_line
from rlhf_cluster.driver.record_json import parse_object
from rlhf_cluster.records import Invalid, RolloutGroup
from rlhf_cluster.records.events import Evaluated, Event

FILE_NAME = "journal.jsonl"
STEP = re.compile(r'\{"event": "StepDone", "time_s": [^,]+, "step": (\d+),')
"""How the line of a step begins: the fields of an entry stand in the order of the event's."""
NUM_SAMPLES = 8
"""Completions of an evaluation that are kept as text; the held-out prompts come in the same order every time."""


class Journal:
    def __init__(self, job_dir: Path) -> None:
        job_dir.mkdir(parents=True, exist_ok=True)
        path = job_dir / FILE_NAME
        cut_torn_line(path)
        # A prompt can hold a lone surrogate, which UTF-8 cannot; it must not end the journal.
        self._file = path.open("a", encoding="utf-8", errors="replace")

    def on_event(self, event: Event) -> None:
        self._file.write(json.dumps(entry(event), ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def entry(event: Event) -> dict[str, Any]:
    """The journal's form of an event: `event` is its type, the other keys are its fields."""
    left_out = ("scored",) if isinstance(event, Evaluated) else ()  # `held_out` keeps them, of the last evaluation
    fields = {
        field.name: _plain(getattr(event, field.name))
        for field in dataclasses.fields(event)
        if field.name not in left_out
    }
    if isinstance(event, Evaluated):
        fields["samples"] = [_sample(group) for group in event.groups[:NUM_SAMPLES]]
    return {"event": type(event).__name__, **fields}


def read(job_dir: Path) -> Iterator[dict[str, Any]]:
    """The entries of a job's journal, oldest first; none when there is no journal.

    A torn last line is left out, and so is one that was damaged: nothing that a job needs to go on stands here only.
    """
    path = job_dir / FILE_NAME
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.endswith("\n") and (found := _parsed(line)) is not None:
                yield found


def steps_done(job_dir: Path, *, after: int) -> set[int] | None:
    """Those of the steps past `after` that the journal tells of; None where the job has no journal. As quick as reading
    the file: an entry holds all groups of its step."""
    path = job_dir / FILE_NAME
    if not path.exists():
        return None
    with path.open(encoding="utf-8", errors="replace") as lines:
        found = ((STEP.match(line), line) for line in lines)
        steps = ((int(match[1]), line) for match, line in found if match and line.endswith("\n"))
        return {step for step, line in steps if step > after and _parsed(line) is not None}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return parse_object(line)
    except ValueError:
        return None


def _plain(value: Any) -> Any:
    match value:
        case float() | np.floating():
            return float(value) if math.isfinite(value) else None
        case np.integer():
            return int(value)
        case Path():
            return str(value)
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case RolloutGroup():
            return _group(value)
        case Invalid():
            return dataclasses.asdict(value)
        case tuple() | list():
            return [_plain(item) for item in value]
        case np.ndarray():
            return _plain(value.tolist())
    return value


def _group(group: RolloutGroup) -> dict[str, Any]:
    return {
        "request_id": group.request_id,
        "prompt_id": group.prompt.prompt_id,
        "worker_id": group.worker_id,
        "oldest_version": group.oldest_version,
        "lengths": _plain(group.lengths),
        "rewards": _plain(group.rewards),
    }


def _sample(group: RolloutGroup) -> dict[str, Any]:
    return {
        "prompt_id": group.prompt.prompt_id,
        "prompt": group.prompt.text,
        "completion": group.texts[0] if group.texts else "",
        "reward": None if group.rewards is None or not len(group.rewards) else _plain(group.rewards[0]),
    }
