"""`rlhf watch JOB`: a job live, until it is over."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.failure import DONE, JOB_FAILED
from rlhf_cluster.cli.output import emit, emit_line, output_option
from rlhf_cluster.cli.reference import any_job_argument
from rlhf_cluster.cli.service import OVER, connected, detaching, patiently, service_options
from rlhf_cluster.cli.words import clock, progress
from rlhf_cluster.driver.observers.excerpt import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlhf_cluster.client import Client, StreamMessage
    from rlhf_cluster.wire.jobs import JobDetail

TOPICS = ("jobs", "metrics", "workers")
END = "JobOver"
"""The event after which the job has one of the states `OVER`."""
LINE = 160


@click.command
@any_job_argument
@service_options
@output_option
def watch(job: Path | str, output: str) -> int | None:
    """Show JOB live until it is over: a panel on a terminal, else a line for everything that happens.

    With -o json or -o jsonl, one JSON object a line. The exit code is 1 when the job has not succeeded. Ctrl-C ends the
    watching; the job goes on.
    """
    if isinstance(job, Path):
        from rlhf_cluster.cli.status import look_at_directory, watch_closely

        return watch_closely(lambda: look_at_directory(job), output=output)
    with connected() as client:
        return watch_to_end(client, client.find(job).job_id, output=output)


def watch_to_end(client: Client, job_id: str, *, output: str, shows_events: bool = True) -> int:
    """The exit code. Without `shows_events`, the job is all that is printed, at its end."""
    with detaching(f"the job goes on; `rlhf watch {job_id}` shows it again"):
        if shows_events and output == "table" and sys.stdout.isatty():
            from rlhf_cluster.cli.live import show_live

            job = show_live(client, job_id, messages_of(client, job_id))
        else:
            job = _follow(client, job_id, output=output, shows_events=shows_events)
    said = f"{job.state}: {excerpt(job.message, width=LINE)}" if job.message else job.state
    text = f"{job.job_id} {said}, at {progress(job)}"
    if output == "table":
        click.echo(text)
    elif not shows_events:
        emit(job, output=output, text=str)
    return DONE if job.state == "succeeded" else JOB_FAILED


def messages_of(client: Client, job_id: str) -> Iterator[StreamMessage]:
    return client.stream(job_id=job_id, topics=TOPICS)


def is_end(message: StreamMessage) -> bool:
    return message.data.get("kind") == END


def tells_nothing(message: StreamMessage) -> bool:
    """Connected, anew or for the first time, or a sign of life: the job may be over without our having heard."""
    from rlhf_cluster.client.stream import OPENED, RESYNC, STILL_THERE

    return message.topic in (OPENED, RESYNC, STILL_THERE)


def _follow(client: Client, job_id: str, *, output: str, shows_events: bool) -> JobDetail:
    is_first = True
    for message in messages_of(client, job_id):
        if "event_id" in message.data and shows_events:
            _show(message, output=output)
        if is_end(message) or tells_nothing(message):
            job = patiently(lambda: client.job(job_id))
            if job.state in OVER:
                return job
            if is_first and output == "table":
                click.echo(f"{clock(time.time())}  the job is {job.state}, at {progress(job)}")
            is_first = False
    raise AssertionError("the stream has no end")


def _show(message: StreamMessage, *, output: str) -> None:
    event = message.data
    if output != "table":
        emit_line(event)
    else:
        level = "" if event.get("level") == "info" else f"{event.get('level')}: "
        click.echo(f"{clock(event.get('time_s') or time.time())}  {level}{excerpt(str(event.get('text')), width=LINE)}")
