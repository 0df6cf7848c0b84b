"""`rlhf clone JOB`: a new job of the same settings and code, from the beginning."""

from __future__ import annotations

import click

from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.reference import service_job_argument
from rlhf_cluster.cli.service import connected, service_options


@click.command
@service_job_argument
@service_options
@output_option
def clone(job: str, output: str) -> None:
    """Submit JOB once more, with the same settings and code, from the beginning."""
    with connected() as client:
        made = client.clone(client.find(job).job_id)
    emit(made, output=output, text=lambda: f"submitted {made.job_id}; `rlhf watch {made.job_id}` shows it")
