"""`rlhf plan`: what a job will do and need, before anything is started."""

from __future__ import annotations

import click

from rlhf_cluster.cli.job import job_argument, load, overrides_argument
from rlhf_cluster.cli.output import emit, output_option


@click.command
@job_argument
@overrides_argument
@output_option
def plan(job: str, overrides: tuple[str, ...], output: str) -> None:
    """Show the batch arithmetic of JOB and the CPUs, GPUs, threads and memory of every role; refuse what can never fit.

    JOB is a TOML or YAML file, or a recipe's name.

    \b
    rlhf plan job.toml
    rlhf plan positive-reviews train.prompts_per_step=32 rollout.num_workers=4
    """
    config = load(job, overrides)
    from rlhf_cluster.runtime import placement

    planned = placement.plan(config)
    emit(planned.as_dict(), output=output, text=lambda: "\n".join(planned.lines()))
