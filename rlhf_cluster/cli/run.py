"""`rlhf run JOB`: a job from start to end in this process, on the local runtime or on Ray."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli import failure
from rlhf_cluster.cli.interrupt import run_stoppable
from rlhf_cluster.cli.job import job_argument, load, overrides_argument
from rlhf_cluster.cli.output import emit, output_option
from rlhf_cluster.errors import Fenced, RlhfError

if TYPE_CHECKING:
    from rlhf_cluster.config import JobConfig
    from rlhf_cluster.driver.observers.base import Observer
    from rlhf_cluster.records.events import JobEnded

OUTCOMES = {"succeeded": failure.DONE, "failed": failure.BY_GUARD, "interrupted": failure.INTERRUPTED}
"""Outcome of a job that ended in order -> exit code; what else fails is raised."""


@click.command
@job_argument
@overrides_argument
@output_option
def run(job: str, overrides: tuple[str, ...], output: str) -> int:
    """Run JOB: a TOML or YAML file, or a recipe's name. Settings are overridden as KEY=VALUE.

    \b
    rlhf run job.toml
    rlhf run word-world train.num_steps=20 rollout.num_workers=2
    rlhf run word-world runtime=local rollout.engine.type=transformers

    Ctrl-C stops after the current step with a checkpoint, which `rlhf resume` goes on from; a second one aborts.
    Progress goes to stdout, or to stderr
    with -o json.
    """
    return run_to_end(load(job, overrides), output=output)


def run_to_end(config: JobConfig, *, output: str, job_dir: Path | None = None, take_over: bool = False) -> int:
    """Run, show the summary and return the exit code; `job_dir` is that of a job that goes on."""
    from rlhf_cluster.driver.observers.build import JobObservers

    # The journal is always kept: the summary is made from it.
    observers = JobObservers(("journal", *config.observers), stream=sys.stdout if output == "table" else sys.stderr)
    try:
        ended = asyncio.run(_run(config, observers, job_dir=job_dir, take_over=take_over))
    except RlhfError as error:
        _note_whereabouts(error, observers.job_dir)
        raise
    finally:
        observers.close()
    _show_end(ended, output=output)
    return OUTCOMES[ended.outcome]


async def _run(config: JobConfig, observers: Observer, *, job_dir: Path | None, take_over: bool) -> JobEnded:
    from rlhf_cluster.driver.run import run_job

    return await run_stoppable(
        lambda stop: run_job(config, observers=observers, stop=stop, job_dir=job_dir, take_over=take_over),
        tell=lambda line: click.echo(line, err=True),
    )


def _note_whereabouts(error: RlhfError, job_dir: Path | None) -> None:
    """What the person needs after the error itself: where the job lies and whether it can go on."""
    if job_dir is None:
        return
    error.add_note(f"job directory: {job_dir}")
    if not isinstance(error, Fenced):  # which says that it goes on already
        error.add_note(f"`rlhf resume {job_dir}` goes on where it ended")


def _show_end(ended: JobEnded, *, output: str) -> None:
    from rlhf_cluster.driver.observers import journal
    from rlhf_cluster.driver.observers.summary import summarise

    summary = summarise(journal.read(ended.job_dir))
    if summary is None:  # the journal could not be written; its warning has been shown
        emit(dataclasses.asdict(ended), output=output, text=lambda: f"{ended.outcome}: {ended.message}")
        return
    data = dataclasses.asdict(summary) | {"next_command": summary.next_command()}
    emit(data, output=output, text=lambda: f"\n{summary.text()}")
