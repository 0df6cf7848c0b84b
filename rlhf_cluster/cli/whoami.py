"""`rlhf whoami`: which service is asked, as whom, and what one may do there."""

from __future__ import annotations

import click

from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.service import connected, service_options
from rlhf_cluster.cli.words import columns, rights


@click.command
@service_options
@output_option
def whoami(output: str) -> None:
    """Show the service that would be asked, the name of your token, and its scopes."""
    with connected() as client:
        me, access = client.me(), client.access
    data = {"url": access.url, "source": access.source, **me.model_dump(mode="json")}
    lines = [("service", access.url), ("known from", access.source), ("name", me.name), ("may", rights(me.scopes))]
    emit(data, output=output, text=lambda: columns(lines))
