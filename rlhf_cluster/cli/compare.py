"""`rlhf compare JOB JOB...`: how jobs differ, in what was set and in what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rlhf_cluster.cli.metrics import PLOTTED, chosen, curves, fitting
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.reference import JobReference
from rlhf_cluster.cli.service import connected, service_options
from rlhf_cluster.cli.words import number
from rlhf_cluster.driver.observers.excerpt import excerpt

if TYPE_CHECKING:
    from rlhf_cluster.client import Client
    from rlhf_cluster.wire.figures import Latest, Series

MAX_POINTS = 400
ABSENT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    job: str
    """Id, or directory."""
    name: str
    state: str
    config: Mapping[str, Any]
    latest: Latest
    series: Sequence[Series]
    """Of the keys that are to be plotted."""


@click.command
@click.argument("jobs", nargs=-1, required=True, metavar="JOB JOB...", type=JobReference())
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Only this metric, or those that fit a pattern.")
@click.option("--plot", is_flag=True, help="Draw the metrics as curves too.")
@service_options
@output_option
def compare(jobs: tuple[Path | str, ...], keys: tuple[str, ...], plot: bool, output: str) -> None:
    """Compare jobs: the settings in which they differ, and the newest value of every metric.

    \b
    rlhf compare ablation-3 ablation-4 --key reward/mean --plot
    """
    if len(jobs) < 2:
        raise click.UsageError("name two jobs or more")
    if all(isinstance(job, Path) for job in jobs):
        found = [_of_directory(Path(job), keys, plots=plot) for job in jobs]
    else:
        with connected() as client:
            found = [
                _of_directory(job, keys, plots=plot)
                if isinstance(job, Path)
                else _of_job(client, job, keys, plots=plot)
                for job in jobs
            ]
    emit(_data(found, keys), output=output, text=lambda: _text(found, keys))


def _of_directory(job_dir: Path, keys: Sequence[str], *, plots: bool) -> Compared:
    import json

    from rlhf_cluster.cli import job_dir_figures
    from rlhf_cluster.driver.status_file import read_view

    config, view = json.loads((job_dir / "job.json").read_text(encoding="utf-8")), read_view(job_dir)
    latest = job_dir_figures.latest(job_dir)
    return Compared(
        job=str(job_dir),
        name=str(config.get("name", job_dir.name)),
        state=view.state if view else "unknown",
        config=config,
        latest=latest,
        series=job_dir_figures.series(job_dir, _plotted(keys, latest)) if plots else (),
    )


def _of_job(client: Client, ref: str, keys: Sequence[str], *, plots: bool) -> Compared:
    job = client.job(client.find(ref).job_id)
    latest = client.latest(job.job_id)
    wanted = _plotted(keys, latest) if plots else []
    series = client.series(job.job_id, wanted, max_points=MAX_POINTS).series if wanted else ()
    return Compared(job=job.job_id, name=job.name, state=job.state, config=job.config, latest=latest, series=series)


def _plotted(keys: Sequence[str], latest: Latest) -> list[str]:
    return fitting(keys or PLOTTED, latest.values)


def _data(found: Sequence[Compared], keys: Sequence[str]) -> dict[str, Any]:
    return {
        "jobs": [{"job": each.job, "name": each.name, "state": each.state, "step": each.latest.step} for each in found],
        "settings": dict(_differing([each.config for each in found])),
        "metrics": {key: [each.latest.values.get(key) for each in found] for key in _keys(found, keys)},
        "series": [list(each.series) for each in found],
    }


def _text(found: Sequence[Compared], keys: Sequence[str]) -> str:
    heads = [excerpt(each.name, width=32) for each in found]
    jobs = [["job", *(each.job for each in found)], ["state", *(each.state for each in found)]]
    jobs.append(["step", *(max(each.latest.step, 0) for each in found)])
    settings = [
        [key, *(excerpt(_shown(value), width=60) for value in values)]
        for key, values in _differing([each.config for each in found])
    ]
    values = [[key, *(number(each.latest.values.get(key)) for each in found)] for key in _keys(found, keys)]
    parts = [
        table(["", *heads], jobs),
        table(["setting", *heads], settings) if settings else "the settings are the same",
        table(["metric", *heads], values) if values else "nothing was measured yet",
        *(f"{excerpt(each.name)} ({each.job})\n\n{curves(each.series)}" for each in found if each.series),
    ]
    return "\n\n".join(parts)


def _keys(found: Sequence[Compared], keys: Sequence[str]) -> list[str]:
    """Of any of the jobs, in the order of the alphabet."""
    has = sorted({key for each in found for key in each.latest.values})
    return chosen(keys, has) if keys else has


def _differing(configs: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Dotted keys in which not all are the same, with the value of each."""
    flat = [dict(_flat(config, "")) for config in configs]
    for key in dict.fromkeys(key for config in flat for key in config):
        values = [config.get(key, ABSENT) for config in flat]
        if any(value != values[0] for value in values):
            yield key, values


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
