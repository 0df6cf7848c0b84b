"""`rlhf kill JOB`: end a job of a service at once."""

from __future__ import annotations

import click

from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.reference import service_job_argument
from rlhf_cluster.cli.service import connected, service_options


@click.command
@service_job_argument
@service_options
@output_option
def kill(job: str, output: str) -> None:
    """End JOB at once. What came after its last checkpoint is lost."""
    with connected() as client:
        found = client.kill(client.find(job).job_id)
    emit(found, output=output, text=lambda: f"{found.job_id} is being ended; `rlhf watch {found.job_id}` shows it")
