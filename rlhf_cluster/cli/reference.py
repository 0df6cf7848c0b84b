"""What JOB means: a job of a service, or the directory of a job that runs without one. And how long to wait for it."""

from __future__ import annotations

import os
from pathlib import Path

import click

from rlhf_cluster.cli.failure import NotFound

WHERE = ("/", "./", "../", "~")
"""By which a directory begins, whether it is there or not; a job's name may hold a slash too."""


class JobDir(click.Path):
    """A directory that holds a job. Raises `NotFound` for anything else."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        job_dir = Path(value)
        if not (job_dir / "job.json").is_file():
            raise NotFound(
                f"{job_dir} is no job directory, as it holds no job.json: `rlhf run` makes one inside output_dir and "
                "prints its path"
            )
        return job_dir


class JobReference(click.ParamType):
    """A job directory as its path; anything else is for the service to find, as it is."""

    name = "JOB"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        if (
            isinstance(value, Path)
            or (Path(value) / "job.json").is_file()
            or value.startswith(WHERE)
            or value in (".", "..")
        ):
            return JobDir().convert(value, param, ctx)
        return value


class ServiceJob(JobReference):
    """For verbs that only a service has."""

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> str:
        found = super().convert(value, param, ctx)
        if isinstance(found, Path):
            self.fail(
                f"{found} is the directory of a job that runs without a service; `rlhf stop {found}` and "
                f"`rlhf resume {found}` end it and go on with it",
                param,
                ctx,
            )
        return found


job_dir_argument = click.argument("job_dir", type=JobDir())
any_job_argument = click.argument("job", metavar="JOB", type=JobReference())
service_job_argument = click.argument("job", metavar="JOB", type=ServiceJob())


def within_option(default_s: float, *, help: str = "Seconds to wait for the driver's answer."):
    kind = click.FloatRange(min=0, min_open=True)
    return click.option("--within", "within_s", type=kind, default=default_s, show_default=True, help=help)
