"""`rlhf checkpoint JOB_DIR`: a running job writes a checkpoint now, not at its next turn."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.control import job_dir_argument, tell, within_option
from rlhf_cluster.cli.output import output_option
from rlhf_cluster.records.commands import Checkpoint


@click.command
@job_dir_argument
@within_option(600)
@output_option
def checkpoint(job_dir: Path, within_s: float, output: str) -> None:
    """Let the job of JOB_DIR write a checkpoint after the step under way."""
    tell(job_dir, Checkpoint(), within_s=within_s, output=output)
