"""The job's last evaluation as files: `evaluation.json`, `answers.jsonl` and, of a reward model, its report.

Written when the job ends: their intervals take a second to compute, and nobody is kept waiting any more.
"""

from __future__ import annotations

from pathlib import Path

from rlhf_cluster.config.load import read_job
from rlhf_cluster.driver.evaluation_file import write_evaluation
from rlhf_cluster.records.events import Evaluated, Event, JobEnded


class HeldOut:
    def __init__(self, job_dir: Path) -> None:
        self._job_dir = job_dir
        self._last: Evaluated | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, Evaluated):
            self._last = event
        elif isinstance(event, JobEnded) and self._last is not None:
            write_evaluation(self._job_dir, read_job(self._job_dir), self._last)
            self._last = None

    def close(self) -> None:
        """Nothing is open."""
