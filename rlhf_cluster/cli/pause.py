"""`rlhf pause JOB_DIR`: a running job sends out no new prompts until `rlhf resume`."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.control import job_dir_argument, tell, within_option
from rlhf_cluster.cli.output import output_option
from rlhf_cluster.records.commands import Pause


@click.command
@job_dir_argument
@within_option(60)
@output_option
def pause(job_dir: Path, within_s: float, output: str) -> None:
    """Let the job of JOB_DIR send out no new prompts. What is under way is finished and kept; `rlhf resume` goes on."""
    tell(job_dir, Pause(), within_s=within_s, output=output)
