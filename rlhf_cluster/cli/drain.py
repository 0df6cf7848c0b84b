"""`rlhf drain JOB_DIR WORKER`: one worker of a running job is retired, and its work handed over."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.control import job_dir_argument, tell, within_option
from rlhf_cluster.cli.output import output_option
from rlhf_cluster.records.commands import Drain


@click.command
@job_dir_argument
@click.argument("worker")
@within_option(60)
@output_option
def drain(job_dir: Path, worker: str, within_s: float, output: str) -> None:
    """Retire WORKER, an id that `rlhf status` shows. Its work is handed over, and its role has one worker less."""
    tell(job_dir, Drain(worker_id=worker), within_s=within_s, output=output)
