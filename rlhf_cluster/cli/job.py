"""The arguments JOB and key=value, which `run`, `plan` and `eval` share."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.failure import NotFound

if TYPE_CHECKING:
    from rlhf_cluster.config import JobConfig

job_argument = click.argument("job")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


def load(job: str, overrides: Sequence[str]) -> JobConfig:
    """The checked job of a file or a recipe name. Raises `NotFound` or `ConfigError`."""
    from rlhf_cluster.config import load_job
    from rlhf_cluster.config.load import recipe_names

    names = recipe_names()
    if not Path(job).is_file() and job not in names:
        raise NotFound(f"no job file and no recipe is called {job!r}; {_suggestion(job, names)}")
    return load_job(job, overrides)


def _suggestion(job: str, names: Sequence[str]) -> str:
    if close := difflib.get_close_matches(job, names, n=1):
        return f"did you mean the recipe {close[0]}?"
    return "`rlhf recipes list` shows the recipes"
