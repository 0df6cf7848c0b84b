"""TensorBoard: every metric of every step and evaluation, in `tensorboard/` of the job directory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_cluster.records.events import Evaluated, Event, JobStarted, StepDone

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class TensorBoard:
    """Writes through tensorboardX, which queues points for a thread of its own."""

    def __init__(self, job_dir: Path) -> None:
        self._log_dir = job_dir / "tensorboard"
        self._writer: SummaryWriter | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            self._open(first_step=event.first_step)
        elif isinstance(event, StepDone | Evaluated):
            self._write(event)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, *, first_step: int) -> None:
        from tensorboardX import SummaryWriter

        # A resumed job repeats the steps after its checkpoint; TensorBoard then hides the points of the first time.
        purge_step = first_step + 1 if first_step else None
        self._writer = SummaryWriter(logdir=str(self._log_dir), purge_step=purge_step, flush_secs=10)

    def _write(self, event: StepDone | Evaluated) -> None:
        if self._writer is None:
            self._open(first_step=0)
        assert self._writer is not None
        for name, value in event.metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, float(value), event.step, walltime=event.time_s)
