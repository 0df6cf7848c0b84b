"""`rlhf list`: the jobs of a service, newest first."""

from __future__ import annotations

import time
from typing import Any

import click

from rlhf_cluster.cli.job_text import job_table
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.service import connected, service_options

STATES = ("queued", "launching", "running", "paused", "stopping", "succeeded", "failed", "cancelled")


@click.command("list")
@click.option("--state", multiple=True, type=click.Choice(STATES), help="Only these; can be given again.")
@click.option("--name", help="Only jobs of this name.")
@click.option("--owner", help="Only those of this token's name.")
@click.option("--mine", is_flag=True, help="Only those submitted with your token.")
@click.option("--label", metavar="KEY[=VALUE]", help="Only those with this label.")
@click.option("--search", metavar="TEXT", help="Only those with this in id, name, notes or message.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@service_options
@output_option
def list_jobs(search: str | None, mine: bool, limit: int, output: str, state: tuple[str, ...], **given: Any) -> None:
    """List jobs, newest first."""
    with connected() as client:
        filters = given | {"q": search, "state": list(state) or None}
        if mine:
            filters["owner"] = client.me().name
        found = list(client.jobs(limit=limit + 1, **filters))
    shown, is_more = found[:limit], len(found) > limit

    text = job_table(shown, now_s=time.time()) if shown else "there is no such job"
    emit(shown, output=output, text=lambda: text)
    if is_more:
        click.echo(f"there are more; --limit {limit * 5} shows up to {limit * 5}", err=True)
