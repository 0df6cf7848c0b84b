"""`rlhf replay JOB_DIR --step N`: a step of a job computed once more, and its loss compared with the logged one."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.failure import DONE, JOB_FAILED
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.reference import job_dir_argument

if TYPE_CHECKING:
    from rlhf_cluster.driver.replay import Replayed


@click.command
@job_dir_argument
@click.option("--step", type=click.IntRange(min=0), required=True, help="The step to end with; the first one is 0.")
@output_option
def replay(job_dir: Path, step: int, output: str) -> int:
    """Compute a step of the job in JOB_DIR once more, from the checkpoint before it and the logged batches since.

    Exit code 1 when a loss differs from the logged one in any bit. Nothing is written into JOB_DIR.
    """
    from rlhf_cluster.driver.replay import replay as replayed

    steps = asyncio.run(replayed(job_dir, step=step, tell=lambda sentence: click.echo(sentence, err=True)))
    data = [dataclasses.asdict(each) | {"is_equal": each.is_equal} for each in steps]
    emit({"job_dir": str(job_dir), "steps": data}, output=output, text=lambda: page(steps))
    return JOB_FAILED if any(each.is_equal is False for each in steps) else DONE


def page(steps: list[Replayed]) -> str:
    """Losses with all their digits, so that any difference shows."""
    words = {True: "yes", False: "no", None: "-"}
    rows = [
        (
            each.step,
            each.num_tokens,
            "-" if each.logged_loss is None else each.logged_loss,
            each.loss,
            words[each.is_equal],
        )
        for each in steps
    ]
    return table(("step", "tokens", "logged loss", "recomputed loss", "equal"), rows)
