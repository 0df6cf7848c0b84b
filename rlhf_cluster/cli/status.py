"""`rlhf status JOB_DIR`: a job as its driver last saw it, and whether that driver still runs."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from rlhf_cluster.cli.control import job_dir_argument
from rlhf_cluster.cli.failure import Unavailable
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.cli.status_text import render
from rlhf_cluster.driver.claim import current_driver
from rlhf_cluster.driver.status_file import read_view

WATCH_EVERY_S = 1.0


@click.command
@job_dir_argument
@click.option("--watch", is_flag=True, help="Show it again every second until the job has ended; Ctrl-C ends it.")
@output_option
def status(job_dir: Path, watch: bool, output: str) -> None:
    """Show the job of JOB_DIR: its step, what it waits for, and every worker.

    With --watch and -o json, one JSON object a line.
    """
    if watch:
        _watch(job_dir, output=output)
    else:
        data, text, _ = _look(job_dir)
        emit(data, output=output, text=lambda: text)


def _watch(job_dir: Path, *, output: str) -> None:
    shown = ""
    try:
        while True:
            data, text, goes_on = _look(job_dir)
            if output == "json":
                click.echo(json.dumps(data))
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


def _look(job_dir: Path) -> tuple[dict[str, Any], str, bool]:
    """As data, as text, and whether there is more to come. Raises `Unavailable` where no driver ever told anything."""
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
