"""`rlhf doctor`: is this machine ready? One line a check, and the fix beside everything that is not in order."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import click

from rlhf_cluster.cli.failure import DONE, JOB_FAILED
from rlhf_cluster.cli.output import emit, output_option


@click.command
@click.option(
    "--runs-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Where jobs will write.",
)
@click.option("--quick", is_flag=True, help="Leave out the checks that import torch, vllm, ray and transformers.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="RLHF_DATA_DIR",
    help="Of the service; as `rlhf up` when left out.",
)
@click.option("--database", envvar="RLHF_DATABASE", help="That a service would use, as for `rlhf serve`.")
@click.option("--ray-address", envvar="RLHF_RAY_ADDRESS", help="Dashboard of the cluster, as for `rlhf serve`.")
@output_option
def doctor(
    runs_dir: Path,
    quick: bool,
    data_dir: Path | None,
    database: str | None,
    ray_address: str | None,
    output: str,
) -> int:
    """Check this machine, for jobs and for a service. Exit code 1 when something would keep one from running."""
    from rlhf_cluster.cli.checks import Check, all_checks
    from rlhf_cluster.cli.service_checks import service_checks
    from rlhf_cluster.client.access import home_dir

    service_data = data_dir.expanduser().absolute() if data_dir else home_dir()
    checks: list[Check] = []
    service = service_checks(service_data, database=database, ray_address=ray_address)
    for check in itertools.chain(all_checks(runs_dir, quick=quick), service):
        checks.append(check)
        if output == "table":
            click.echo(check.line())
    failed = [check.name for check in checks if check.status == "fail"]
    emit(
        {"ok": not failed, "checks": [dataclasses.asdict(check) for check in checks]},
        output=output,
        text=lambda: f"not ready: {', '.join(failed)}" if failed else "ready",
    )
    return JOB_FAILED if failed else DONE
