"""`rlhf data show|convert`: what a job's data gives, before anything is started, and files of preferences."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.job import job_argument, load, overrides_argument
from rlhf_cluster.cli.output import emit, output_option, table

if TYPE_CHECKING:
    from rlhf_cluster.data.mixture_report import MixtureReport


@click.group
def data() -> None:
    """What jobs learn from: prompts, demonstrations, preferences and mixtures of them."""


@data.command
@job_argument
@overrides_argument
@click.option(
    "--num", type=click.IntRange(1), default=1000, show_default=True, help="Examples of a mixture to report about."
)
@output_option
def show(job: str, overrides: tuple[str, ...], num: int, output: str) -> None:
    """Read and tokenise what JOB trains on, and say what there is; of a mixture, what is drawn how often.

    \b
    rlhf data show job.toml
    rlhf data show job.toml data.too_long=skip --num 100000 -o json
    """
    config = load(job, overrides)
    from rlhf_cluster.data.recorded import RecordedStream
    from rlhf_cluster.data.stream import PromptStream
    from rlhf_cluster.driver.prompts import load_prompts

    stream = load_prompts(config).train
    assert isinstance(stream, RecordedStream | PromptStream), "those are the ones that a job's data is opened as"
    counts = dataclasses.asdict(stream.counts) if isinstance(stream, RecordedStream) else {"num_rows": stream.num_rows}
    report = stream.report(num)
    emit(
        {**counts, "mixture": dataclasses.asdict(report) if report else None},
        output=output,
        text=lambda: "\n".join([_counted(counts), *(_reported(report) if report else ())]),
    )


@data.command
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--majority", "by_majority", is_flag=True, help="One row a pair: what most of its judgements say.")
@output_option
def convert(source: Path, target: Path, by_majority: bool, output: str) -> None:
    """Write the preferences of SOURCE into TARGET, each .jsonl or .parquet.

    \b
    rlhf data convert labels.jsonl pairs.parquet --majority
    """
    from rlhf_cluster.data.preference_files import read_preferences, write_preferences
    from rlhf_cluster.data.preferences import majority

    preferences = read_preferences(source)
    written = majority(preferences) if by_majority else preferences
    write_preferences(target, written)
    num_decided = sum(preference.is_decided for preference in written)
    emit(
        {"path": target, "num_read": len(preferences), "num_written": len(written), "num_decided": num_decided},
        output=output,
        text=lambda: f"{target}: {len(written)} of {len(preferences)} rows, {num_decided} of them decided",
    )


def _counted(counts: dict[str, int]) -> str:
    """
    >>> _counted({"num_rows": 3, "num_skipped": 0, "num_cut": 1, "num_tokens": 12_345})
    '3 rows, 1 cut, 12,345 tokens'
    """
    return ", ".join(
        f"{value:,} {name.removeprefix('num_').replace('_', ' ')}"
        for name, value in counts.items()
        if value or name == "num_rows"
    )


def _reported(report: MixtureReport) -> list[str]:
    headers = ("part", "rows", "rate", "drawn", "share", "epochs", "tokens")
    parts = [
        (
            part.name,
            f"{part.num_rows:,}",
            f"{part.rate:.1%}",
            f"{part.num_drawn:,}",
            f"{part.share:.1%}",
            f"{part.epochs:.2f}",
            "" if part.num_tokens is None else f"{part.num_tokens:,}",
        )
        for part in report.parts
    ]
    forms = [(part.name, name, f"{count:,}") for part in report.parts for name, count in part.forms.items()]
    wordings = ["", table(("part", "wording", "drawn"), forms)] if forms else []
    return ["", f"the first {report.num_drawn:,} examples:", table(headers, parts), *wordings]
