"""`rlhf drain JOB WORKER`: one worker of a running job is retired, and its work handed over."""

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
def drain(job: Path | str, worker: str, within_s: float, output: str) -> None:
    """Retire WORKER, an id that `rlhf status` shows. Its work is handed over, and its role has one worker less."""
    ask_driver(
        job,
        {"command": "Drain", "worker_id": worker},
        lambda client, job_id: client.drain(job_id, worker),
        within_s=within_s,
        output=output,
    )
