"""`rlhf pipeline run|plan|lineage`: stages that feed each other, of which only those run again that have changed."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from rlhf_cluster.cli.failure import DONE, NotFound
from rlhf_cluster.cli.job import overrides_argument
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.pipeline_report import report

if TYPE_CHECKING:
    from rlhf_cluster.pipeline.load import Pipeline
    from rlhf_cluster.pipeline.plan import Decision
    from rlhf_cluster.pipeline.run import Progress
    from rlhf_cluster.pipeline.state import Making

file_argument = click.argument("file", type=click.Path(path_type=Path))
ignore_code_option = click.option(
    "--ignore-code", is_flag=True, help="Keep stages of which nothing but Python code has changed."
)
MAX_SHOWN = 3
"""Reasons in a line; JSON has all."""
ACTS = {"keep": "unchanged", "resume": "goes on", "run": "runs", "perhaps": "runs if its inputs change"}


@click.group
def pipeline() -> None:
    """Stages that feed each other, each a job: FILE is a TOML or YAML file that names them, or one of ours by name."""


@pipeline.command
@file_argument
@overrides_argument
@ignore_code_option
@click.option(
    "--take-over", is_flag=True, help="Run it even if whoever ran it last may be alive; that one is fenced off."
)
@click.option("--at-once", default=1, show_default=True, type=click.IntRange(1), help="Seeds to run side by side.")
@output_option
def run(file: Path, overrides: tuple[str, ...], ignore_code: bool, take_over: bool, at_once: int, output: str) -> int:
    """Run the stages of FILE in order; leave those alone that are unchanged, go on with one that was interrupted.

    \b
    rlhf pipeline run alignment.toml
    rlhf pipeline run alignment.toml seeds=[1,2,3] sft.train.num_steps=20
    rlhf pipeline run word-world --at-once 3

    Ctrl-C stops the stage under way after its step, with a checkpoint; the same command goes on. Progress goes to
    stdout, or to stderr with -o json.
    """
    from rlhf_cluster.pipeline.run import run_pipeline

    runner = partial(run_stage, stdout=sys.stdout if output == "table" else sys.stderr, take_over=take_over)
    rows: list[dict[str, Any]] = []
    pipelines = _load(file, overrides)
    if at_once > 1 and len(pipelines) > 1:
        flags = ["--ignore-code"] * ignore_code + ["--take-over"] * take_over
        if code := _side_by_side(pipelines, [str(file), *overrides, *flags], at_once=at_once):
            return code
        # Each has done its own; what they have made is kept here.
    for each in pipelines:
        tell = partial(_tell, each) if at_once == 1 else _silent
        made = run_pipeline(each, runner=runner, tell=tell, ignore_code=ignore_code, take_over=take_over)
        rows += [_made_row(each, making) for making in made.values()]
    emit(rows, output=output, text=lambda: f"\n{_table(rows, ('pipeline', 'stage', 'took', 'made', 'job_dir'))}")
    return DONE


@pipeline.command
@file_argument
@overrides_argument
@ignore_code_option
@output_option
def plan(file: Path, overrides: tuple[str, ...], ignore_code: bool, output: str) -> None:
    """Show what a run of FILE would do with each stage, and why. Starts nothing and writes nothing."""
    from rlhf_cluster.pipeline.state import read_state
    from rlhf_cluster.pipeline.survey import survey

    rows: list[dict[str, Any]] = []
    for each in _load(file, overrides):
        state = read_state(each.directory, pipeline=each.name, seed=each.seed)
        rows += [_planned_row(each, decision) for decision in survey(each, state, ignore_code=ignore_code)]
    emit(rows, output=output, text=lambda: _table(rows, ("pipeline", "stage", "act", "why", "job_dir")))


@pipeline.command
@click.argument("path", type=click.Path(path_type=Path))
@output_option
def lineage(path: Path, output: str) -> None:
    """Show what made the model or the stage at PATH: stages, settings, data, code, seeds and checkpoints.

    PATH is the directory of a model or of a stage's job, or a file in one.
    """
    from rlhf_cluster.pipeline.lineage import find_lineage
    from rlhf_cluster.pipeline.lineage_tree import tree_lines

    if not path.exists():
        raise NotFound(f"{path} does not exist")
    found = find_lineage(path)
    if found is None:
        raise NotFound(f"there is no lineage.json in {path} or above: only what a pipeline has made has a lineage")
    emit(found, output=output, text=lambda: "\n".join(tree_lines(found)))


pipeline.add_command(report)


def run_stage(job_dir: Path, *, stdout: TextIO, take_over: bool) -> int:
    """`rlhf resume` of the job directory, which also begins one that has not run; returns its exit code."""
    from rlhf_cluster.cli.main import run as rlhf
    from rlhf_cluster.pipeline.child import run_in_child

    return run_in_child(partial(rlhf, ["resume", str(job_dir), *["--take-over"] * take_over]), stdout=stdout)


def _load(file: Path, overrides: tuple[str, ...]) -> tuple[Pipeline, ...]:
    from rlhf_cluster.pipeline.load import find_pipeline, load_pipelines

    return load_pipelines(find_pipeline(file), overrides)


def _side_by_side(pipelines: tuple[Pipeline, ...], arguments: list[str], *, at_once: int) -> int:
    """The first exit code that is not 0. Their logs are told."""
    from rlhf_cluster.pipeline.side_by_side import run_side_by_side

    logs = [each.directory / "pipeline.log" for each in pipelines]
    for each, log in zip(pipelines, logs, strict=True):
        click.echo(f"seed {each.seed}: what its stages print is in {log}", err=True)
    commands = [["pipeline", "run", *arguments, f"seeds=[{each.seed}]"] for each in pipelines]
    codes = run_side_by_side(commands, logs, num_at_once=at_once, tell=lambda line: click.echo(line, err=True))
    for each, log, code in zip(pipelines, logs, codes, strict=True):
        if code:
            click.echo(f"seed {each.seed}: ended with {code}; see the end of {log}", err=True)
    return next((code for code in codes if code), DONE)


def _silent(_: Progress) -> None:
    """Its stages were told when they ran."""


def _tell(pipeline: Pipeline, progress: Progress) -> None:
    """On stderr, so that what the stages print stays theirs."""
    decision = progress.decision
    why = _cell(decision.reasons)
    place = f"{pipeline.directory.name} {progress.number}/{progress.num_stages} {decision.stage}"
    click.echo(f"== {place}: {ACTS[decision.act]} ({why}) in {progress.job_dir}", err=True)


def _made_row(pipeline: Pipeline, making: Making) -> dict[str, Any]:
    job_dir = pipeline.directory / making.job_dir
    return {
        "pipeline": pipeline.directory.name,
        "seed": pipeline.seed,
        "stage": making.stage,
        "digest": making.digest,
        "took": f"{making.ended_s - making.started_s:.0f} s",
        "made": time.strftime("%Y-%m-%d %H:%M", time.localtime(making.ended_s)),
        "job_dir": str(job_dir),
        "outputs": {name: str(job_dir / output.path) for name, output in making.outputs.items()},
    }


def _planned_row(pipeline: Pipeline, decision: Decision) -> dict[str, Any]:
    making = decision.making
    return {
        "pipeline": pipeline.directory.name,
        "seed": pipeline.seed,
        "stage": decision.stage,
        "act": decision.act,
        "why": list(decision.reasons),
        "job_dir": str(pipeline.directory / making.job_dir) if making else None,
    }


def _table(rows: list[dict[str, Any]], names: tuple[str, ...]) -> str:
    return table(names, [[_cell(row[name]) for name in names] for row in rows])


def _cell(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return value or "-"
    more = len(value) - MAX_SHOWN
    return "; ".join([*value[:MAX_SHOWN], *[f"and {more} more"] * (more > 0)])
