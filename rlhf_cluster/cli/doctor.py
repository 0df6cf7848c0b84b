"""`rlhf doctor`: is this machine ready? One line a check, and the fix beside everything that is not in order."""

from __future__ import annotations

import dataclasses
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
@output_option
def doctor(runs_dir: Path, quick: bool, output: str) -> int:
    """Check this machine. Exit code 1 when something would keep a job from running."""
    from rlhf_cluster.cli.checks import Check, all_checks

    checks: list[Check] = []
    for check in all_checks(runs_dir, quick=quick):
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
