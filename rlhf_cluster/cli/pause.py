"""`rlhf pause JOB`: a running job sends out no new prompts until `rlhf resume`."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.ask import ask_driver
from rlhf_cluster.cli.output import output_option
from rlhf_cluster.cli.reference import any_job_argument, within_option
from rlhf_cluster.cli.service import service_options


@click.command
@any_job_argument
@within_option(60)
@service_options
@output_option
def pause(job: Path | str, within_s: float, output: str) -> None:
    """Let JOB send out no new prompts. What is under way is finished and kept; `rlhf resume` goes on."""
    ask_driver(job, {"command": "Pause"}, lambda client, job_id: client.pause(job_id), within_s=within_s, output=output)
