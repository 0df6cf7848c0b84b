"""`rlhf cancel JOB`: end a job of a service after the step under way, with a checkpoint."""

from __future__ import annotations

import click

from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.reference import service_job_argument
from rlhf_cluster.cli.service import connected, service_options


@click.command
@service_job_argument
@service_options
@output_option
def cancel(job: str, output: str) -> None:
    """End JOB after the step under way, with a checkpoint; by force where it does not end. Does not wait for that."""
    with connected() as client:
        found = client.cancel(client.find(job).job_id)
    emit(
        found,
        output=output,
        text=lambda: f"{found.job_id} ends after the step under way; `rlhf watch {found.job_id}` shows it",
    )
