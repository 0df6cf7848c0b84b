"""`rlhf retry JOB`: go on with a job of a service that failed or was cancelled."""

from __future__ import annotations

import click

from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.reference import service_job_argument
from rlhf_cluster.cli.service import connected, service_options


@click.command
@service_job_argument
@service_options
@output_option
def retry(job: str, output: str) -> None:
    """Go on with JOB, which failed or was cancelled, from its last checkpoint, in a new attempt."""
    with connected() as client:
        found = client.retry(client.find(job).job_id)
    emit(
        found,
        output=output,
        text=lambda: f"{found.job_id} goes on in a new attempt; `rlhf watch {found.job_id}` shows it",
    )
