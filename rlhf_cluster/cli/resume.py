"""`rlhf resume JOB`: a job goes on, whether it was paused, stopped or killed."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.ask import ask_driver
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.reference import any_job_argument, within_option
from rlhf_cluster.cli.service import service_options


@click.command
@any_job_argument
@within_option(60, help="Seconds to wait for the answer of a driver that is paused.")
@click.option(
    "--take-over", is_flag=True, help="Drive the job even if its driver may be alive; that one is fenced off."
)
@service_options
@output_option
def resume(job: Path | str, within_s: float, take_over: bool, output: str) -> int | None:
    """Go on with JOB after a pause.

    A directory whose driver does not run goes on here, where it ended and with the settings it began with; a job of a
    service that has ended goes on with `rlhf retry`.
    """
    if isinstance(job, Path):
        from rlhf_cluster.cli.control import driver_runs

        if take_over or not driver_runs(job):
            return _drive(job, take_over=take_over, output=output)
    elif take_over:
        raise click.UsageError("--take-over is for a job directory; the service sees to it that a job has one driver")
    return ask_driver(
        job, {"command": "Resume"}, lambda client, job_id: client.resume(job_id), within_s=within_s, output=output
    )


def _drive(job_dir: Path, *, take_over: bool, output: str) -> int | None:
    from rlhf_cluster.cli.run import run_to_end
    from rlhf_cluster.config.load import read_job
    from rlhf_cluster.driver.status_file import read_view

    job = read_job(job_dir)
    view = read_view(job_dir)
    if view is not None and view.state == "succeeded" and view.step >= job.train.num_steps:
        done = f"done all its {job.train.num_steps} steps" if job.trains else "generated all that it was asked for"
        text = f"nothing to go on with: the job of {job_dir} has {done}"
        return emit({"job_dir": str(job_dir), "answer": text}, output=output, text=lambda: text)
    return run_to_end(job, output=output, job_dir=job_dir.resolve(), take_over=take_over)
