"""`rlhf cluster`: the Ray cluster that a service runs its jobs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.service import connected, service_options
from rlhf_cluster.cli.words import columns, gib, number
from rlhf_cluster.driver.observers.excerpt import excerpt

if TYPE_CHECKING:
    from rlhf_cluster.wire.access import Cluster

IN_BYTES = ("memory", "object_store_memory")


@click.command
@service_options
@output_option
def cluster(output: str) -> None:
    """Show the nodes of the Ray cluster, what they have, and how much of it is used."""
    with connected() as client:
        found = client.cluster()
    emit(found, output=output, text=lambda: _text(found))


def _text(found: Cluster) -> str:
    if not found.is_reachable:
        return columns([("Ray", f"not reached at {found.address or 'no address'}: {excerpt(found.reason, width=200)}")])
    resources = [
        [name, _amount(name, found.used.get(name, 0.0)), _amount(name, found.total[name])] for name in found.total
    ]
    nodes = [
        [
            node.node_id,
            node.state,
            ", ".join(f"{name} {_amount(name, value)}" for name, value in node.resources.items()),
        ]
        for node in found.nodes
    ]
    head = columns([("Ray", f"{found.ray_version or ''} at {found.address}".strip())])
    return "\n\n".join([head, table(["resource", "used", "total"], resources), table(["node", "state", "has"], nodes)])


def _amount(name: str, value: float) -> str:
    return (gib(value) or "0 GiB") if name in IN_BYTES else number(value)
