"""`rlhf openapi`: the description of a service's REST API."""

from __future__ import annotations

import click

from rlhf_cluster.cli.service import connected, service_options


@click.command
@service_options
def openapi() -> None:
    """Print the OpenAPI description of the service, as JSON, for tools that make clients of it."""
    with connected() as client:
        click.echo(client.openapi())
