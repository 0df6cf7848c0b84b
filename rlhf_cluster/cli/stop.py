"""`rlhf stop JOB`: a running job ends after the step under way, with a checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.failure import Unavailable
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.reference import any_job_argument, within_option
from rlhf_cluster.cli.service import OVER, connected, detaching, service_options, wait_for

if TYPE_CHECKING:
    from rlhf_cluster.client import Client
    from rlhf_cluster.records.members import JobView
    from rlhf_cluster.wire.jobs import JobDetail

LOOK_EVERY_S = 0.2


@click.command
@any_job_argument
@within_option(600, help="Seconds to wait until the job has ended.")
@service_options
@output_option
def stop(job: Path | str, within_s: float, output: str) -> None:
    """End JOB after the step under way, with a checkpoint, and wait until it has ended."""
    if isinstance(job, Path):
        text, outcome, ended = _stop_directory(job, within_s=within_s)
    else:
        with connected() as client:
            text, outcome, ended = _stop_job(client, job, within_s=within_s)
    emit({"command": "Stop", "answer": text, "outcome": outcome}, output=output, text=lambda: f"{text}\nended: {ended}")


def _stop_directory(job_dir: Path, *, within_s: float) -> tuple[str, str, str]:
    """The driver's answer, the outcome, and both in words."""
    from rlhf_cluster.cli.control import driver_runs

    deadline_s = time.monotonic() + within_s
    text = _ask(job_dir, within_s=within_s)
    while driver_runs(job_dir):
        if time.monotonic() > deadline_s:
            raise Unavailable(f"{text}; the job has not ended within {within_s:g} s and goes on stopping")
        time.sleep(LOOK_EVERY_S)
    view = _end(job_dir)
    ended = f"{view.state} at step {view.step} of {view.num_steps}" if view else "its driver has left no word how"
    return text, view.state if view else "unknown", ended


def _ask(job_dir: Path, *, within_s: float) -> str:
    from rlhf_cluster.cli.control import ask, driver_runs
    from rlhf_cluster.records.commands import Stop

    was_running = driver_runs(job_dir)
    try:
        return ask(job_dir, Stop(), within_s=within_s)
    except Unavailable:
        if was_running and not driver_runs(job_dir) and _end(job_dir):
            return "the job ended before its driver could answer"  # which is what was asked for
        raise


def _end(job_dir: Path) -> JobView | None:
    """The last driver's word on how the job ended; None where it left none."""
    from rlhf_cluster.cli.control import OUTCOMES
    from rlhf_cluster.driver.claim import current_driver
    from rlhf_cluster.driver.status_file import read_view

    view, driver = read_view(job_dir), current_driver(job_dir)
    told = view is not None and driver is not None and view.epoch == driver.epoch and view.state in OUTCOMES
    return view if told else None


def _stop_job(client: Client, ref: str, *, within_s: float) -> tuple[str, str, str]:
    from rlhf_cluster.driver.observers.excerpt import printable

    job_id = client.cancel(client.find(ref).job_id).job_id
    with detaching(f"job {job_id} goes on stopping; `rlhf status {job_id}` shows it"):
        job = wait_for(lambda: _over(client, job_id), within_s=within_s)
    if job is None:
        raise Unavailable(f"job {job_id} has not ended within {within_s:g} s and goes on stopping")
    return printable(job.message) or "stopped", job.state, f"{job.state} at step {job.step} of {job.num_steps}"


def _over(client: Client, job_id: str) -> JobDetail | None:
    job = client.job(job_id)
    return job if job.state in OVER else None
