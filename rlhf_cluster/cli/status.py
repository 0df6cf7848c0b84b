"""`rlhf status [JOB]`: a job as its driver last saw it, and whether that one still runs; without a job, the service."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlhf_cluster.cli.failure import Unavailable
from rlhf_cluster.cli.job_text import status_of
from rlhf_cluster.cli.output import emit, emit_line, output_option
from rlhf_cluster.cli.reference import JobReference
from rlhf_cluster.cli.service import OVER, connected, service_options
from rlhf_cluster.cli.words import columns, rights
from rlhf_cluster.driver.observers.excerpt import excerpt

if TYPE_CHECKING:
    from rlhf_cluster.client import Client

WATCH_EVERY_S = 1.0
UNFINISHED = ["queued", "launching", "running", "paused", "stopping"]
MAX_SHOWN = 20
Look = tuple[Any, str, bool]
"""As data, as text, and whether there is more to come."""


@click.command
@click.argument("job", metavar="[JOB]", required=False, type=JobReference())
@click.option("--watch", is_flag=True, help="Show it again every second until the job has ended; Ctrl-C ends it.")
@service_options
@output_option
def status(job: Path | str | None, watch: bool, output: str) -> None:
    """Show JOB: its step, what it waits for, and every worker. Without JOB, show the service.

    With --watch, -o json and -o jsonl both print one JSON object a line.
    """
    if isinstance(job, Path):
        _show(lambda: look_at_directory(job), watch=watch, output=output)
        return
    with connected() as client:
        if job is None:
            _show(lambda: _look_at_service(client), watch=watch, output=output)
            return
        job_id = client.find(job).job_id
        _show(lambda: _look_at_job(client, job_id), watch=watch, output=output)


def _show(look: Callable[[], Look], *, watch: bool, output: str) -> None:
    if watch:
        watch_closely(look, output=output)
        return
    data, text, _ = look()
    emit(data, output=output, text=lambda: text)


def watch_closely(look: Callable[[], Look], *, output: str) -> None:
    """What `look` sees, every second, until there is no more to come."""
    shown = ""
    try:
        while True:
            data, text, goes_on = look()
            if output != "table":
                emit_line(data)
            elif sys.stdout.isatty():
                click.clear()
                click.echo(text)
            elif text != shown:
                click.echo(f"\n{text}" if shown else text)
            shown = text
            if not goes_on:
                return
            time.sleep(WATCH_EVERY_S)
    except KeyboardInterrupt:
        return


def look_at_directory(job_dir: Path) -> Look:
    """Raises `Unavailable` where no driver ever told anything."""
    from rlhf_cluster.cli.status_text import render
    from rlhf_cluster.driver.claim import current_driver
    from rlhf_cluster.driver.status_file import read_view

    driver, view, now_s = current_driver(job_dir), read_view(job_dir), time.time()
    if view is None and (driver is None or driver.is_alive is False):
        raise Unavailable(f"no driver is running in {job_dir}, and none has left a status there")
    data = {
        "driver": None if driver is None else {**dataclasses.asdict(driver), "is_alive": driver.is_alive},
        "age_s": round(now_s - view.time_s, 3) if view else None,
        "job": dataclasses.asdict(view) if view else None,
    }
    goes_on = driver is not None and driver.is_alive is not False
    return data, render(view, driver=driver, job_dir=job_dir, now_s=now_s), goes_on


def _look_at_job(client: Client, job_id: str) -> Look:
    job, pools = client.job(job_id), client.pools(job_id)
    data = {"job": job.model_dump(mode="json", exclude={"source", "config"}), "pools": pools}
    return data, status_of(job, pools, now_s=time.time()), job.state not in OVER


def _look_at_service(client: Client) -> Look:
    me, version, cluster = client.me(), client.version(), client.cluster()
    unfinished = list(client.jobs(state=UNFINISHED, limit=MAX_SHOWN))
    num_nodes = sum(node.state == "ALIVE" for node in cluster.nodes)
    nodes = "1 node" if num_nodes == 1 else f"{num_nodes} nodes"
    ray = f"{nodes} at {cluster.address}" if cluster.is_reachable else f"not there: {cluster.reason}"
    names = ", ".join(f"{excerpt(job.name, width=32)} ({job.job_id}, {job.state})" for job in unfinished)
    text = columns(
        [
            ("service", f"{client.access.url}, version {version.version}"),
            ("known from", client.access.source),
            ("you", f"{me.name}, who may {rights(me.scopes)}"),
            ("Ray", ray),
            ("jobs", f"not over: {names}" if names else "none that is not over"),
        ]
    )
    data = {"url": client.access.url, "version": version.version, "me": me, "cluster": cluster, "jobs": unfinished}
    return data, text, True
