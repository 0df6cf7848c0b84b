"""`rlhf schema`: the JSON Schema of a job file, for editors and other programs."""

from __future__ import annotations

import json

import click

from rlhf_cluster.cli.output import output_option


@click.command
@output_option
def schema(output: str) -> None:
    """Print the JSON Schema (2020-12) of a job file. It is JSON whatever -o says."""
    from rlhf_cluster.config import job_schema

    click.echo(json.dumps(job_schema(), indent=2))
