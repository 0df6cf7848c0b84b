"""`rlhf stop JOB_DIR`: a running job ends after the step under way, with a checkpoint."""

from __future__ import annotations

import time
from pathlib import Path

import click

from rlhf_cluster.cli.control import OUTCOMES, ask, driver_runs, job_dir_argument, within_option
from rlhf_cluster.cli.failure import Unavailable
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.driver.claim import current_driver
from rlhf_cluster.driver.status_file import read_view
from rlhf_cluster.records.commands import Stop
from rlhf_cluster.records.members import JobView

LOOK_EVERY_S = 0.2


@click.command
@job_dir_argument
@within_option(600, help="Seconds to wait until the job has ended.")
@output_option
def stop(job_dir: Path, within_s: float, output: str) -> None:
    """End the job of JOB_DIR after the step under way, with a checkpoint, and wait until it has ended."""
    deadline_s = time.monotonic() + within_s
    text = _ask(job_dir, within_s=within_s)
    while driver_runs(job_dir):
        if time.monotonic() > deadline_s:
            raise Unavailable(f"{text}; the job has not ended within {within_s:g} s and goes on stopping")
        time.sleep(LOOK_EVERY_S)
    view = _end(job_dir)
    outcome = view.state if view else "unknown"
    ended = f"{view.state} at step {view.step} of {view.num_steps}" if view else "its driver has left no word how"
    emit({"command": "Stop", "answer": text, "outcome": outcome}, output=output, text=lambda: f"{text}\nended: {ended}")


def _ask(job_dir: Path, *, within_s: float) -> str:
    was_running = driver_runs(job_dir)
    try:
        return ask(job_dir, Stop(), within_s=within_s)
    except Unavailable:
        if was_running and not driver_runs(job_dir) and _end(job_dir):
            return "the job ended before its driver could answer"  # which is what was asked for
        raise


def _end(job_dir: Path) -> JobView | None:
    """The last driver's word on how the job ended; None where it left none."""
    view, driver = read_view(job_dir), current_driver(job_dir)
    told = view is not None and driver is not None and view.epoch == driver.epoch and view.state in OUTCOMES
    return view if told else None
