"""`rlhf workers JOB`: the pools of a job and every worker in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from rlhf_cluster.cli.failure import Unavailable
from rlhf_cluster.cli.job_text import pool_table, worker_table
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.reference import any_job_argument
from rlhf_cluster.cli.service import connected, service_options


@click.command
@any_job_argument
@service_options
@output_option
def workers(job: Path | str, output: str) -> None:
    """Show how many workers each pool of JOB has and should have, why one is pending, and what each one does.

    With -o json the workers; `rlhf show JOB -o json` has the pools too.
    """
    if isinstance(job, Path):
        _of_directory(job, output=output)
        return
    with connected() as client:
        pools = client.pools(client.find(job).job_id)
    found = [worker for pool in pools for worker in pool.workers]
    parts = [pool_table(pools), worker_table(found) if found else "no worker is known yet"]
    emit(found, output=output, text=lambda: "\n\n".join(parts))


def _of_directory(job_dir: Path, *, output: str) -> None:
    from rlhf_cluster.cli.status_text import render_workers
    from rlhf_cluster.driver.status_file import read_view

    view = read_view(job_dir)
    if view is None:
        raise Unavailable(f"no driver has left a status in {job_dir}")
    found = [dataclasses.asdict(member) for pool in view.pools for member in pool.members]
    emit(found, output=output, text=lambda: render_workers(view))
