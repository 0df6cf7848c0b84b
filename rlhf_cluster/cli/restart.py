"""`rlhf restart JOB WORKER`: one worker of a running job is retired, and another takes its place."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.ask import ask_driver
from rlhf_cluster.cli.output import output_option
from rlhf_cluster.cli.reference import any_job_argument, within_option
from rlhf_cluster.cli.service import service_options


@click.command
@any_job_argument
@click.argument("worker")
@within_option(60)
@service_options
@output_option
def restart(job: Path | str, worker: str, within_s: float, output: str) -> None:
    """Retire WORKER, an id that `rlhf status` shows, and have another take its place. Its work is handed over."""
    ask_driver(
        job,
        {"command": "Restart", "worker_id": worker},
        lambda client, job_id: client.restart(job_id, worker),
        within_s=within_s,
        output=output,
    )
