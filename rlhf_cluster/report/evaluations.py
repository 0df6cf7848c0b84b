"""The evaluations that a report is about, read from job directories: figures, answers, curves of training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf_cluster.driver import answers as answer_file
from rlhf_cluster.driver.answers import TOTAL, Answer, read_answers, reward_names
from rlhf_cluster.driver.evaluation_file import FILE_NAME, REWARD_MODEL
from rlhf_cluster.driver.observers import journal
from rlhf_cluster.driver.observers.curve import Points
from rlhf_cluster.driver.record_json import parse_object
from rlhf_cluster.errors import DataError
from rlhf_cluster.functional.statistics import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One evaluation of one model."""

    name: str
    """By which the report calls it; no two of a report have the same."""
    job_dir: Path
    data: Mapping[str, Any]
    """What `evaluation.json` says."""
    answers: tuple[Answer, ...]
    curves: Points
    """By metric, of the job that has trained the model; empty where it is not known."""
    reward_model: Mapping[str, Any] | None
    """What `reward_model_report.json` says; None for a policy."""
    figures: Mapping[str, Interval] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "figures", {name: interval_of(told) for name, told in self.data["figures"].items()})

    @property
    def rewards(self) -> list[str]:
        return reward_names(self.answers)

    def by_prompt(self) -> dict[str, list[Answer]]:
        found: dict[str, list[Answer]] = {}
        for answer in self.answers:
            found.setdefault(answer.prompt, []).append(answer)
        return found


def read_evaluations(job_dirs: Sequence[Path]) -> list[Evaluation]:
    """In the order given, each once. Raises `DataError` for a directory without an evaluation."""
    unique = list(dict.fromkeys(path.resolve() for path in job_dirs))
    told = [_told(path) for path in unique]
    names = Counter(data["name"] for data in told)
    return [
        Evaluation(
            name=data["name"] if names[data["name"]] == 1 else path.name,
            job_dir=path,
            data=data,
            answers=tuple(read_answers(path)) if (path / answer_file.FILE_NAME).exists() else (),
            curves=_curves(path, str(data["model"])),
            reward_model=_parsed(path / REWARD_MODEL) if (path / REWARD_MODEL).exists() else None,
        )
        for path, data in zip(unique, told, strict=True)
    ]


def interval_of(told: Mapping[str, float | None]) -> Interval:
    """What JSON has no word for, it tells as null."""
    value, low, high = (math.nan if told[key] is None else float(told[key] or 0.0) for key in ("value", "low", "high"))
    return Interval(value, low, high)


def metric_of(reward: str) -> str:
    """The metric of evaluations that is the mean of this reward."""
    return "eval/reward_mean" if reward == TOTAL else f"eval/reward/{reward}"


def figure_of(reward: str) -> str:
    """The same among the figures of `evaluation.json`."""
    return TOTAL if reward == TOTAL else f"{TOTAL}/{reward}"


def _told(job_dir: Path) -> Mapping[str, Any]:
    if not (job_dir / FILE_NAME).is_file():
        raise DataError(
            f"{job_dir} holds no {FILE_NAME}: name the directory of a job that has ended, or evaluate its model with "
            "`rlhf eval JOB --checkpoint DIR`"
        )
    return _parsed(job_dir / FILE_NAME)


def _parsed(path: Path) -> Mapping[str, Any]:
    try:
        return parse_object(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): evaluate again with `rlhf eval`") from error


def _curves(job_dir: Path, model: str) -> Points:
    """Of the job itself, or of that whose checkpoint was evaluated."""
    points = Points()
    checkpoints = Path(model).parent
    trained_in = job_dir if (job_dir / journal.FILE_NAME).exists() else checkpoints.parent
    if trained_in is job_dir or checkpoints.name == "checkpoints":
        for entry in journal.read(trained_in):
            points.add(entry.get("metrics") or {}, step=entry["step"])
    return points
