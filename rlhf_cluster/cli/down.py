"""`rlhf down`: end what `rlhf up` has started."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_cluster.cli.failure import Unavailable
from rlhf_cluster.cli.output import emit, output_option


@click.command
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="That of `rlhf up`; $RLHF_CLUSTER_HOME/service or ~/.rlhf_cluster when left out.",
)
@output_option
def down(data_dir: Path | None, output: str) -> None:
    """End the service of this machine and its private Ray.

    Jobs that run on it end after their step, with a checkpoint; at the next `rlhf up` they go on from there.
    """
    from rlhf_cluster.client.access import home_dir
    from rlhf_cluster.service.up import NotUp
    from rlhf_cluster.service.up import down as bring_down

    try:
        ended = bring_down(data_dir or home_dir(), tell=lambda line: click.echo(line, err=True))
    except NotUp as error:
        raise Unavailable(str(error)) from error
    emit({"ended": ended}, output=output, text=lambda: f"ended {' and '.join(ended)}" if ended else "nothing was up")
