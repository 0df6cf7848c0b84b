"""`rlhf pipeline report FILE`: what the stages have made, seed by seed: a table here, a page for each seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.job import overrides_argument
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.errors import DataError

if TYPE_CHECKING:
    from rlhf_cluster.pipeline.load import Pipeline
    from rlhf_cluster.report.report import Report

ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure of one stage."""

    stage: str
    figure: str
    by_seed: tuple[str, ...]
    """As text; empty where the seed has none."""


@click.command
@click.argument("file", type=click.Path(path_type=Path))
@overrides_argument
@output_option
def report(file: Path, overrides: tuple[str, ...], output: str) -> None:
    """Compare what the stages of FILE have made: each against the first one whose policy was evaluated.

    Writes `report.html` into the directory of each seed, with pictures and answers. Runs nothing.
    """
    from rlhf_cluster.pipeline.load import find_pipeline, load_pipelines
    from rlhf_cluster.report.files import write_report

    pipelines = load_pipelines(find_pipeline(file), overrides)
    reports = [_report(each) for each in pipelines]
    pages = [each.directory / "report.html" for each in pipelines]
    for made, page in zip(reports, pages, strict=True):
        write_report(made, page)
    lines = list(_lines(reports))
    guards = [f"seed {each.seed}  {told}" for each in pipelines for told in _guards(each)]
    data = {
        "pages": [str(page) for page in pages],
        "seeds": [each.seed for each in pipelines],
        "figures": [asdict(line) for line in lines],
        "guards": guards,
    }

    def text() -> str:
        heads = ("stage", "figure", *(f"seed {each.seed}" for each in pipelines))
        shown = table(heads, [(line.stage, line.figure, *line.by_seed) for line in lines])
        return "\n\n".join(filter(None, [shown, "\n".join(guards), "\n".join(f"page  {page}" for page in pages)]))

    emit(data, output=output, text=text)


def _report(pipeline: Pipeline) -> Report:
    from rlhf_cluster.report.evaluations import read_evaluations
    from rlhf_cluster.report.report import make_report

    evaluated = [path for path in _job_dirs(pipeline) if (path / "evaluation.json").is_file()]
    if not evaluated:
        raise DataError(
            f"{pipeline.directory} holds no evaluation yet: run the pipeline, with [data.eval] in its jobs and "
            '"held_out" among their observers'
        )
    return make_report(read_evaluations(evaluated), proxy=None)


def _job_dirs(pipeline: Pipeline) -> list[Path]:
    """Of the newest makings that have succeeded, in the order of the stages."""
    from rlhf_cluster.pipeline.state import read_state

    state = read_state(pipeline.directory, pipeline=pipeline.name, seed=pipeline.seed)
    found = []
    for stage in pipeline.stages:
        succeeded = [making for making in state.of(stage.name) if making.status == "succeeded"]
        found += [pipeline.directory / max(succeeded, key=lambda making: making.ended_s).job_dir] if succeeded else []
    return found


def _lines(reports: Sequence[Report]) -> Iterator[Line]:
    stages = dict.fromkeys(each.name for made in reports for each in made.evaluations)
    for stage in stages:
        told = [_figures(made, stage) for made in reports]
        for figure in dict.fromkeys(name for figures in told for name in figures):
            yield Line(stage=stage, figure=figure, by_seed=tuple(figures.get(figure, "") for figures in told))


def _figures(made: Report, stage: str) -> dict[str, str]:
    """A stage's own: the reward that says what is good and the one trained on, the KL, the win rate; or the accuracy."""
    evaluation = next((each for each in made.evaluations if each.name == stage), None)
    if evaluation is None:
        return {}
    if evaluation.reward_model is not None:
        accuracy = evaluation.reward_model[ACCURACY]
        return {ACCURACY: f"{accuracy['value']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%})"}
    wanted = {f"reward/{name}": name for name in evaluation.rewards if name != "reward"} | {"kl": "kl"}
    shown = {
        word: f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
        for name, word in wanted.items()
        if (figure := evaluation.figures.get(name)) is not None
    }
    for compared in made.compared:
        if compared.name == stage:
            rate = compared.win_rate
            against = f"wins against {made.baseline.name}"
            shown[against] = f"{rate.value:.1%} ({rate.low:.1%} to {rate.high:.1%})"
    return shown


def _guards(pipeline: Pipeline) -> Iterator[str]:
    from rlhf_cluster.driver.observers import journal

    for job_dir in _job_dirs(pipeline):
        for entry in journal.read(job_dir):
            if entry["event"] == "GuardTripped":
                yield f"{job_dir.name} at step {entry['step']}: {entry['text']}"
