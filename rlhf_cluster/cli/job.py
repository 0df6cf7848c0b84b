"""The arguments JOB and key=value, which `run`, `plan` and `eval` share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.failure import NotFound
from rlhf_cluster.errors import did_you_mean

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
        raise NotFound(
            f"no job file and no recipe is called {job!r}{did_you_mean(job, names)}; "
            "`rlhf recipes list` shows the recipes"
        )
    return load_job(job, overrides)
