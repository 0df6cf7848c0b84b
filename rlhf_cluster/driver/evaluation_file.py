"""What an evaluation leaves in its job's directory: `evaluation.json`, `answers.jsonl`, `reward_model_report.json`.

Figures with their intervals, and how they were made: config, seeds, weights, versions. Reports are made of these files
alone, so they can be made again.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlhf_cluster import __version__
from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.answer_figures import answer_figures
from rlhf_cluster.driver.answers import Answer, answers_of, write_answers
from rlhf_cluster.driver.calibration import Calibration, calibration_of
from rlhf_cluster.driver.evaluate import SCORE
from rlhf_cluster.driver.json_lines import plain
from rlhf_cluster.driver.whole_file import write_whole
from rlhf_cluster.functional.clusters import NUM_RESAMPLES
from rlhf_cluster.functional.statistics import Interval
from rlhf_cluster.records.events import Evaluated

FILE_NAME = "evaluation.json"
REWARD_MODEL = "reward_model_report.json"
SHOWN_VERSIONS = ("torch", "transformers", "vllm", "ray", "numpy")


def write_evaluation(job_dir: Path, job: JobConfig, event: Evaluated) -> dict[str, Any]:
    """Returns what `evaluation.json` says. Files of an earlier evaluation in `job_dir` are replaced."""
    answers = answers_of(event.groups)
    if answers:
        write_answers(job_dir, answers)
    calibration = calibration_of(event.scored, score=SCORE, seed=job.seed)
    if calibration:
        _write(job_dir / REWARD_MODEL, calibration_data(calibration) | {"step": event.step})
    data = _evaluation(job, event, answers, calibration)
    _write(job_dir / FILE_NAME, data)
    return data


def interval_data(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def calibration_data(calibration: Calibration) -> dict[str, Any]:
    """As it stands in `reward_model_report.json`."""
    bins = [
        {"least": least, "largest": largest, "num_pairs": num, "accuracy": interval_data(accuracy)}
        for least, largest, num, accuracy in (*calibration.by_margin, *calibration.by_label_gap)
    ]
    num_by_margin = len(calibration.by_margin)
    return {
        "num_pairs": calibration.num_pairs,
        "num_ties": calibration.num_ties,
        "accuracy": interval_data(calibration.accuracy),
        "margin": {"mean": calibration.margin[0], "standard_error": calibration.margin[1]},
        "brier": calibration.brier,
        "expected_calibration_error": calibration.expected_error,
        "curve": asdict(calibration.curve),
        "accuracy_by_margin": bins[:num_by_margin],
        "accuracy_by_label_gap": bins[num_by_margin:],
        "chosen": calibration.chosen,
        "rejected": calibration.rejected,
    }


def _evaluation(
    job: JobConfig, event: Evaluated, answers: list[Answer], calibration: Calibration | None
) -> dict[str, Any]:
    figures = answer_figures(answers, job.evaluation, seed=job.seed)
    if calibration:
        figures["accuracy"] = calibration.accuracy
    return {
        "name": job.name,
        "step": event.step,
        "time_s": event.time_s,
        "model": job.model,
        "fingerprint": event.fingerprint,
        "reference": (job.reference.model or job.model) if job.evaluation.reference and answers else None,
        "num_prompts": len({answer.prompt for answer in answers}),
        "num_answers": len(answers),
        "num_invalid": sum(bool(answer.invalid) for answer in answers),
        "figures": {name: interval_data(interval) for name, interval in figures.items()},
        "metrics": event.metrics,
        "seed": job.seed,
        "intervals": {
            "confidence": 0.95,
            "method": "percentile bootstrap over prompts; Wilson where all prompts agree",
            "num_resamples": NUM_RESAMPLES,
            "seed": job.seed,
        },
        "versions": {"rlhf_cluster": __version__, "python": platform.python_version(), **_versions()},
        "config": job.model_dump(mode="json"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in SHOWN_VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _write(path: Path, data: dict[str, Any]) -> None:
    write_whole(path, json.dumps(plain(data), indent=2, allow_nan=False) + "\n")
