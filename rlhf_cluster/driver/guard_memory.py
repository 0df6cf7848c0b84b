"""What the guards of a job compare: figures of its first and last steps, and its evaluations. It survives a resume, in
`guards.json` of the job directory, so that a job that was interrupted is not judged anew."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.driver.whole_file import read_small, write_whole
from rlhf_cluster.flow.guards import DRIFTING, KL, GuardSettings
from rlhf_cluster.flow.judge import Judgement
from rlhf_cluster.records.events import Evaluated, StepDone

FILE_NAME = "guards.json"


@dataclass(slots=True, kw_only=True)
class GuardMemory:
    first: dict[str, list[float]] = field(default_factory=dict)
    """By figure of `DRIFTING`, of the first `drift_steps` steps."""
    last: dict[str, list[float]] = field(default_factory=dict)
    """Likewise of the last ones."""
    kl: list[float] = field(default_factory=list)
    """Of the last `kl_steps` steps."""
    judgements: list[Judgement] = field(default_factory=list)
    """Of every evaluation, oldest first."""

    def add_step(self, done: StepDone, settings: GuardSettings) -> None:
        figures = {name: done.metrics[name] for name in DRIFTING if math.isfinite(done.metrics.get(name, math.nan))}
        for name, value in figures.items():
            first, last = self.first.setdefault(name, []), self.last.setdefault(name, [])
            if len(first) < settings.drift_steps:
                first.append(value)
            last.append(value)
            del last[: -settings.drift_steps]
        if KL in done.metrics:
            self.kl.append(done.metrics[KL])
            del self.kl[: -settings.kl_steps]

    def add_evaluation(self, evaluated: Evaluated, judge: str) -> None:
        """A resumed job evaluates the step it begins with once more; that one takes the other's place."""
        scored = [group for group in evaluated.groups if group.rewards is not None and judge in group.breakdown]
        if not scored:
            return
        num_prompts = len(scored)
        earlier = [each for each in self.judgements if each.step < evaluated.step and len(each.judge_P) == num_prompts]
        scores = [group.breakdown[judge] for group in scored]
        judgement = Judgement(
            step=evaluated.step,
            proxy_P=np.array([_mean(group.rewards) for group in scored if group.rewards is not None]),
            judge_P=np.array([_mean(each) for each in scores]),
            judge_std=_std(np.concatenate(scores)),
        )
        self.judgements = [*earlier, judgement]

    def write(self, job_dir: Path) -> None:
        """Raises `OSError`."""
        write_whole(job_dir / FILE_NAME, json.dumps(_plain(asdict(self)), allow_nan=False) + "\n")


def read_memory(job_dir: Path, *, step: int) -> GuardMemory:
    """As a former driver left it at `step`, or an empty one. Raises `ValueError` for a file that holds none."""
    if not step or not (job_dir / FILE_NAME).exists():
        return GuardMemory()
    try:
        data = json.loads(read_small(job_dir / FILE_NAME))
        judgements = [_judgement(each) for each in data.pop("judgements")]
        return GuardMemory(judgements=judgements, **data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{FILE_NAME} cannot be read: {error}") from error


def _judgement(data: Mapping[str, Any]) -> Judgement:
    proxy_P, judge_P = (np.array(data[name], np.float64) for name in ("proxy_P", "judge_P"))
    return Judgement(step=data["step"], proxy_P=proxy_P, judge_P=judge_P, judge_std=data["judge_std"])


def _plain(value: Any) -> Any:
    """NaN as null, which `np.array(..., float64)` reads as NaN again."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case np.ndarray():
            return _plain(value.tolist())
        case float():
            return value if math.isfinite(value) else None
    return value


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else math.nan


def _std(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.std()) if len(there) else 0.0
