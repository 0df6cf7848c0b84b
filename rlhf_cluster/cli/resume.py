"""`rlhf resume JOB_DIR`: a job that was stopped or killed goes on from its newest checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.failure import NotFound
from rlhf_cluster.cli.output import output_option
from rlhf_cluster.cli.run import run_to_end


@click.command
@click.argument("job_dir", type=click.Path(path_type=Path))
@output_option
def resume(job_dir: Path, output: str) -> int:
    """Go on with the job of JOB_DIR from its newest checkpoint, with the settings it began with."""
    if not job_dir.is_dir():
        raise NotFound(f"no job directory {job_dir}; `rlhf run` prints it, and makes it inside output_dir")
    from rlhf_cluster.driver.run import resume_point

    config, checkpoint = resume_point(job_dir)
    return run_to_end(config, output=output, job_dir=job_dir.resolve(), checkpoint=checkpoint)
