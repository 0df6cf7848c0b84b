"""`rlhf up`: the service on this machine, with a Ray of its own unless a cluster is named."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.failure import Unavailable
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.serve import needs_service


@click.command
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where it keeps everything; $RLHF_CLUSTER_HOME/service or ~/.rlhf_cluster when left out.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 8420, or a free one where that is taken, when left out.")
@click.option("--ray-address", help="Dashboard of the cluster that jobs run on; a private Ray is started without it.")
@click.option("--num-cpus", type=click.IntRange(min=1), help="CPUs that the private Ray pretends to have.")
@click.option(
    "--object-store-gib",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    help="Shared memory of the private Ray.",
)
@output_option
def up(
    data_dir: Path | None,
    host: str,
    port: int | None,
    ray_address: str | None,
    num_cpus: int | None,
    object_store_gib: float,
    output: str,
) -> None:
    """Start the service in the background and print its address, with a login for one browser.

    What runs already is left running. `rlhf down` ends it.
    """
    needs_service("fastapi", *([] if ray_address else ["ray"]))
    from rlhf_cluster.client.access import home_dir
    from rlhf_cluster.service.private_ray import RayNotStarted
    from rlhf_cluster.service.up import NotUp, UpOptions
    from rlhf_cluster.service.up import up as bring_up

    options = UpOptions(
        data_dir=data_dir or home_dir(),
        host=host,
        port=port,
        ray_address=ray_address,
        num_cpus=num_cpus,
        object_store_bytes=int(object_store_gib * 2**30),
    )
    try:
        found = bring_up(options, tell=lambda line: click.echo(line, err=True))
    except (NotUp, RayNotStarted) as error:
        raise Unavailable(str(error)) from error
    data = {
        "url": found.info.url,
        "login_url": found.login_url,
        "was_up": found.was_up,
        "data_dir": str(options.data_dir),
    }
    lines = [
        f"the service {'was up already' if found.was_up else 'is up'}: {found.info.url}",
        f"log in (once, within 5 minutes): {found.login_url}"
        if found.login_url
        else f"log in with a token of yours: the one in {options.data_dir} was revoked",
        f"`rlhf down` ends it; everything it keeps is in {options.data_dir}",
    ]
    emit(data, output=output, text=lambda: "\n".join(lines))
