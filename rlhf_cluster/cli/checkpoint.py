"""`rlhf checkpoint JOB`: a running job writes a checkpoint now, not at its next turn."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.ask import ask_driver
from rlhf_cluster.cli.output import output_option
from rlhf_cluster.cli.reference import any_job_argument, within_option
from rlhf_cluster.cli.service import service_options


@click.command
@any_job_argument
@within_option(600)
@service_options
@output_option
def checkpoint(job: Path | str, within_s: float, output: str) -> None:
    """Let JOB write a checkpoint after the step under way."""
    ask_driver(
        job,
        {"command": "Checkpoint"},
        lambda client, job_id: client.checkpoint(job_id),
        within_s=within_s,
        output=output,
    )
