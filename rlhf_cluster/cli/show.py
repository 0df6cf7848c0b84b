"""`rlhf show JOB`: all that is known of a job: what it does, its settings, attempts, pools and checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlhf_cluster.cli import job_text
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.reference import any_job_argument
from rlhf_cluster.cli.service import connected, service_options
from rlhf_cluster.cli.words import moment

if TYPE_CHECKING:
    from rlhf_cluster.client import Client

NUM_CHECKPOINTS = 5


@click.command
@any_job_argument
@service_options
@output_option
def show(job: Path | str, output: str) -> None:
    """Show JOB: its state, its settings that differ from the defaults, its attempts, pools and newest checkpoints."""
    if isinstance(job, Path):
        from rlhf_cluster.cli.status import look_at_directory

        data, text, _ = look_at_directory(job)
    else:
        with connected() as client:
            data, text = _look(client, client.find(job).job_id)
    emit(data, output=output, text=lambda: text)


def _look(client: Client, job_id: str) -> tuple[dict[str, Any], str]:
    job, pools, attempts = client.job(job_id), client.pools(job_id), client.attempts(job_id)
    checkpoints = client.checkpoints(job_id)
    rows = [[each.step, moment(each.time_s), each.path] for each in checkpoints[:NUM_CHECKPOINTS]]
    parts = [
        job_text.summary(job, pools, now_s=time.time()) + "\n" + job_text.facts(job),
        job_text.changed(job.changed) if job.changed else "",
        job_text.attempt_table(attempts) if attempts else "",
        job_text.pool_table(pools) if pools else "",
        table(["checkpoint", "written", "path"], rows) if rows else "",
    ]
    data = job.model_dump(mode="json") | {"attempts": attempts, "pools": pools, "checkpoints": checkpoints}
    return data, "\n\n".join(filter(None, parts))
