"""From the entries of a driver's journal to what a page shows: topic, level, one sentence in words, and the fields.

Groups that are dropped and rewards that fail can be many a step. Those of one step, kind and reason become one event
with a count, as far as they come in one message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlhf_cluster.driver.observers.figures import figure

Entry = Mapping[str, Any]

TOPICS = {"StepDone": "metrics", "Evaluated": "metrics", "Generated": "metrics", "WorkerChanged": "workers"}
"""All others are about the job."""
WARNINGS = ("RewardFailed", "PromptQuarantined", "LearnerRecovered")
NOTICES = ("Notice", "GuardTripped")
LEVELS = ("info", "warning", "error")
FOLDED = ("GroupDropped", "RewardFailed")
LEFT_OUT = ("event", "time_s", "step", "groups", "samples")
"""Of the body: what the event has in fields of its own, and what comes with the sample files."""
MAX_TEXT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The fields of an event."""

    topic: str
    kind: str
    level: str
    time_s: float
    step: int
    text: str
    body: dict[str, Any]


def tell(entries: Iterable[Entry], *, now_s: float) -> list[Told]:
    """In the order of the entries; what comes from a newer driver is told as far as it can be."""
    told: list[Told] = []
    folded: dict[tuple[str, int, str], int] = {}
    for entry in entries:
        one = _told(entry, now_s=now_s)
        if one.kind not in FOLDED:
            told.append(one)
            continue
        key = (one.kind, one.step, _reason(entry))
        if key not in folded:
            folded[key] = len(told)
            told.append(replace(one, body={"count": 1, **one.body}))
        else:
            told[folded[key]] = _one_more(told[folded[key]])
    return told


def _told(entry: Entry, *, now_s: float) -> Told:
    kind, time_s = str(entry.get("event", "")), entry.get("time_s")
    step = entry.get("num_done" if kind == "Generated" else "step")  # in the unit of the job
    return Told(
        topic=TOPICS.get(kind, "jobs"),
        kind=kind[:32],
        level=_level(kind, entry),
        time_s=float(time_s) if isinstance(time_s, int | float) and time_s > 0 else now_s,
        step=step if type(step) is int else 0,
        text=SENTENCES.get(kind, lambda _: kind)(entry)[:MAX_TEXT],
        body={key: value for key, value in entry.items() if key not in LEFT_OUT},
    )


def _one_more(told: Told) -> Told:
    count = told.body["count"] + 1
    text = told.text if told.body["count"] == 1 else told.text.partition(" times: ")[2]
    return replace(told, text=f"{count} times: {text}"[:MAX_TEXT], body={**told.body, "count": count})


def _level(kind: str, entry: Entry) -> str:
    if kind in NOTICES:
        return entry["level"] if entry.get("level") in LEVELS else "info"
    if kind == "JobEnded":
        return "error" if entry.get("outcome") == "failed" else "info"
    is_bad = kind in WARNINGS or (kind == "WorkerChanged" and entry.get("state") == "lost")
    return "warning" if is_bad else "info"


def _reason(entry: Entry) -> str:
    invalid = entry.get("invalid")
    parts = [invalid.get("source"), invalid.get("kind")] if isinstance(invalid, Mapping) else [entry.get("reason")]
    return " ".join(str(part) for part in parts)


def _started(entry: Entry) -> str:
    first = entry.get("first_step") or 0
    if not entry.get("num_steps"):
        return "started"
    return f"{'resumed' if first else 'started'}: steps {first + 1} to {entry.get('num_steps')}"


def _figures(title: str, key: str) -> Callable[[Entry], str]:
    def sentence(entry: Entry) -> str:
        metrics = entry.get("metrics")
        value = metrics.get(key) if isinstance(metrics, Mapping) else None
        said = f": {title} {figure(value)}" if isinstance(value, int | float) else ""
        return f"step {entry.get('step')}{said}"

    return sentence


def _reward_failed(entry: Entry) -> str:
    invalid = entry.get("invalid")
    message = invalid.get("message", "") if isinstance(invalid, Mapping) else ""
    return f"{_reason(entry)}: {message} (prompt {entry.get('prompt_id')})"


def _worker_changed(entry: Entry) -> str:
    because = f": {entry['reason']}" if entry.get("reason") else ""
    return f"{entry.get('role')} {entry.get('worker_id')} is {entry.get('state')}{because}"


def _ended(entry: Entry) -> str:
    said = f": {entry['message']}" if entry.get("message") else ""
    return f"the driver ended, {entry.get('outcome')}{said}"


SENTENCES: dict[str, Callable[[Entry], str]] = {
    "JobStarted": _started,
    "Phase": lambda entry: str(entry.get("name")),
    "StepDone": _figures("reward", "reward/mean"),
    "Evaluated": _figures("held-out reward", "eval/reward_mean"),
    "Generated": lambda entry: f"{entry.get('num_done')} of {entry.get('num_total')} prompts are done",
    "GroupDropped": lambda entry: f"a group was dropped: {entry.get('reason')}",
    "RewardFailed": _reward_failed,
    "CheckpointSaved": lambda entry: f"checkpoint saved to {entry.get('path')}",
    "WorkerChanged": _worker_changed,
    "PromptQuarantined": lambda entry: f"prompt {entry.get('prompt_id')} is left out from now on: workers die of it",
    "LearnerRecovered": lambda entry: f"another learner group has taken over: {entry.get('reason')}",
    **dict.fromkeys(NOTICES, lambda entry: str(entry.get("text"))),
    "JobEnded": _ended,
}
