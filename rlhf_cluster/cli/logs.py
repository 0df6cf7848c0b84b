"""`rlhf logs JOB`: what the processes of a job have written, and what they write."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlhf_cluster.cli.output import emit_line, output_option
from rlhf_cluster.cli.reference import any_job_argument
from rlhf_cluster.cli.service import OVER, connected, detaching, patiently, service_options
from rlhf_cluster.driver.observers.excerpt import printable

if TYPE_CHECKING:
    from rlhf_cluster.client import Client
    from rlhf_cluster.wire.figures import LogLine

TOPICS = ("logs", "jobs")
PAGE = 1000
MAX_TAIL = 1000


@click.command
@any_job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until the job is over.")
@click.option("--component", help="Only of `driver`, or of this worker.")
@click.option("--search", metavar="TEXT", help="Only lines with this in them.")
@click.option(
    "--tail", type=click.IntRange(1, MAX_TAIL), default=100, show_default=True, help="Begin so many lines back."
)
@service_options
@output_option
def logs(job: Path | str, follow: bool, component: str | None, search: str | None, tail: int, output: str) -> None:
    """Print the last lines of JOB's processes. With -o json or -o jsonl, one JSON object a line.

    Ctrl-C ends following; the job goes on.
    """
    if isinstance(job, Path):
        from rlhf_cluster.cli.job_dir_logs import show_logs

        show_logs(job, follow=follow, component=component, search=search, tail=tail, output=output)
        return
    with connected() as client:
        job_id = client.find(job).job_id
        chosen = {"component": component, "q": search}
        with detaching(f"the job goes on; `rlhf logs -f {job_id}` shows its lines again"):
            last_id = _show(client.logs(job_id, tail=tail, limit=PAGE, **chosen), output=output)
            if follow:
                _follow(client, job_id, chosen, after=last_id, output=output)


def _follow(client: Client, job_id: str, chosen: dict[str, Any], *, after: int | None, output: str) -> None:
    from rlhf_cluster.cli.watch import is_end, tells_nothing

    for message in client.stream(job_id=job_id, topics=TOPICS):
        is_over = (is_end(message) or tells_nothing(message)) and patiently(lambda: client.job(job_id)).state in OVER
        after = _show_since(client, job_id, chosen, after=after, output=output)
        if is_over:  # seen before the last lines were asked for, so these are the last ones
            return


def _show_since(client: Client, job_id: str, chosen: dict[str, Any], *, after: int | None, output: str) -> int | None:
    while True:
        found = patiently(partial(client.logs, job_id, after=after or 0, limit=PAGE, **chosen))
        after = _show(found, output=output) or after
        if len(found) < PAGE:
            return after


def _show(lines: Sequence[LogLine], *, output: str) -> int | None:
    """The id of the last one."""
    for line in lines:
        if output != "table":
            emit_line(line)
        else:
            click.echo(f"{line.component}  {printable(line.line)}")
    return lines[-1].line_id if lines else None
