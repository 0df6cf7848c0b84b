"""`rlhf metrics JOB [KEY]...`: what a job measures: the newest values, columns by step, or curves as text."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.failure import NotFound
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.reference import any_job_argument
from rlhf_cluster.cli.service import connected, service_options
from rlhf_cluster.cli.words import number
from rlhf_cluster.errors import did_you_mean

if TYPE_CHECKING:
    from rlhf_cluster.client import Client
    from rlhf_cluster.wire.figures import Latest, Series

MAX_POINTS = 10_000
PLOTTED = ("reward/mean", "eval/reward_mean", "learner/kl", "learner/entropy", "rollout/completion_length_mean")
"""Without KEY, as far as the job has them."""
MAX_TOLD = 10
MARGIN = 12
ROWS = 20


@click.command
@any_job_argument
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--plot", is_flag=True, help="Draw each as a curve; without KEY the most telling ones.")
@service_options
@output_option
def metrics(job: Path | str, keys: tuple[str, ...], plot: bool, output: str) -> None:
    """Show the newest value of every metric of JOB; of KEY, its values by step. KEY may be a pattern: 'reward/*'.

    -o json has every step; the table has the last 20.
    """
    if isinstance(job, Path):
        _show_directory(job, keys, plot=plot, output=output)
        return
    with connected() as client:
        _show_job(client, client.find(job).job_id, keys, plot=plot, output=output)


def _show_directory(job_dir: Path, keys: Sequence[str], *, plot: bool, output: str) -> None:
    from rlhf_cluster.cli import job_dir_figures

    latest = job_dir_figures.latest(job_dir)
    if not keys and not plot:
        _show_latest(latest, output=output)
        return
    _show_series(job_dir_figures.series(job_dir, chosen(keys, latest.values)), plot=plot, output=output)


def _show_job(client: Client, job_id: str, keys: Sequence[str], *, plot: bool, output: str) -> None:
    latest = client.latest(job_id)
    if not keys and not plot:
        _show_latest(latest, output=output)
        return
    wanted = chosen(keys, latest.values)
    found = client.series(job_id, wanted, max_points=MAX_POINTS).series if wanted else []
    _show_series(found, plot=plot, output=output)


def chosen(keys: Sequence[str], has: Collection[str]) -> list[str]:
    """The metrics that are meant, each once. Raises `NotFound` for a name or a pattern that fits none."""
    if not keys:
        return [key for key in PLOTTED if key in has]
    for key in keys:
        if not fitting([key], has):
            raise NotFound(f"there is no metric {key!r}{did_you_mean(key, has) or _known(has)}")
    return fitting(keys, has)


def _known(has: Collection[str]) -> str:
    if not has:
        return "; there are none yet"
    more = f" and {len(has) - MAX_TOLD} more, which `rlhf metrics JOB` shows" if len(has) > MAX_TOLD else ""
    return f"; there are {', '.join(list(has)[:MAX_TOLD])}{more}"


def fitting(keys: Sequence[str], has: Collection[str]) -> list[str]:
    """Each once, in the order of `keys`."""
    return list(dict.fromkeys(name for key in keys for name in fnmatch.filter(has, key)))


def _show_latest(latest: Latest, *, output: str) -> None:
    rows = [[key, number(value)] for key, value in latest.values.items()]
    text = f"step {latest.step}\n\n{table(['metric', 'value'], rows)}" if rows else "nothing was measured yet"
    emit(latest, output=output, text=lambda: text)


def _show_series(found: Sequence[Series], *, plot: bool, output: str) -> None:
    emit(list(found), output=output, text=lambda: curves(found) if plot else _columns(found))


def curves(found: Sequence[Series]) -> str:
    from rlhf_cluster.cli.plot import plot

    width = max(20, min(shutil.get_terminal_size().columns, 120) - MARGIN)
    parts = []
    for each in found:
        points = [(step, value) for step, value in zip(each.steps, each.values, strict=True) if value is not None]
        drawn = plot([step for step, _ in points], [value for _, value in points], width=width)
        parts.append(f"{each.key}\n{drawn or 'no value'}")
    return "\n\n".join(parts) or "nothing was measured yet"


def _columns(found: Sequence[Series]) -> str:
    by_step = [dict(zip(each.steps, each.values, strict=True)) for each in found]
    steps = sorted({step for each in found for step in each.steps})[-ROWS:]
    rows = [[step, *(number(values.get(step)) for values in by_step)] for step in steps]
    return table(["step", *(each.key for each in found)], rows)
