"""`rlhf resume JOB_DIR`: a job goes on, whether it was paused, stopped or killed."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.control import driver_runs, job_dir_argument, tell, within_option
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.run import run_to_end
from rlhf_cluster.driver.status_file import read_view
from rlhf_cluster.records.commands import Resume


@click.command
@job_dir_argument
@within_option(60, help="Seconds to wait for the answer of a driver that is paused.")
@click.option(
    "--take-over", is_flag=True, help="Drive the job even if its driver may be alive; that one is fenced off."
)
@output_option
def resume(job_dir: Path, within_s: float, take_over: bool, output: str) -> int | None:
    """Go on with the job of JOB_DIR.

    When its driver runs, it is no longer paused. Else the job goes on here, where it ended and with the settings it
    began with.
    """
    if driver_runs(job_dir) and not take_over:
        return tell(job_dir, Resume(), within_s=within_s, output=output)
    from rlhf_cluster.config.load import read_job

    job = read_job(job_dir)
    view = read_view(job_dir)
    if view is not None and view.state == "succeeded" and view.step >= job.train.num_steps:
        text = f"nothing to go on with: the job of {job_dir} has done all its {job.train.num_steps} steps"
        return emit({"job_dir": str(job_dir), "answer": text}, output=output, text=lambda: text)
    return run_to_end(job, output=output, job_dir=job_dir.resolve(), take_over=take_over)
