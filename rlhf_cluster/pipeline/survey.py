"""How a pipeline stands: the ingredients of its stages as they are on disk now, and what would become of each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf_cluster.errors import CheckpointCorrupt, ConfigError
from rlhf_cluster.pipeline.content import code_digests, content_digest, inputs_on_disk
from rlhf_cluster.pipeline.graph import Reference, Stage
from rlhf_cluster.pipeline.ingredients import Ingredients
from rlhf_cluster.pipeline.load import Pipeline
from rlhf_cluster.pipeline.plan import Decision, decide
from rlhf_cluster.pipeline.state import Making, State

Made = Mapping[str, Making | None]
"""Stage -> the making that others take their inputs from; None while it has none."""


def survey(pipeline: Pipeline, state: State, *, ignore_code: bool = False) -> list[Decision]:
    """What a run would do with each stage, in order. Raises `ConfigError` and `ModelError`."""
    made: dict[str, Making | None] = {}
    decisions = []
    for stage in pipeline.stages:
        decision = look_at(stage, made, state, pipeline.directory, ignore_code=ignore_code)
        made[stage.name] = decision.making if decision.act == "keep" else None
        decisions.append(decision)
    return decisions


def look_at(stage: Stage, made: Made, state: State, directory: Path, *, ignore_code: bool = False) -> Decision:
    makings = state.of(stage.name)
    return decide(
        stage.name,
        ingredients_of(stage, made, directory),
        makings,
        lost=_lost(makings, directory),
        ignore_code=ignore_code,
    )


def ingredients_of(stage: Stage, made: Made, directory: Path) -> Ingredients:
    inputs: dict[str, str | None] = {key: content_digest(path) for key, path in inputs_on_disk(stage.job).items()}
    for reference in stage.references:
        making = made[reference.stage]
        inputs[reference.key] = _digest_of_input(stage, reference, making, directory) if making else None
    return Ingredients(job=dict(stage.job), inputs=inputs, code=code_digests(stage.job))


def place_of(stage: Stage, reference: Reference, making: Making, directory: Path) -> Path:
    """Where the input lies. Raises `ConfigError` when it is not there."""
    job_dir = directory / making.job_dir
    where = f"stages.{stage.name}: {reference.key} = '{reference}'"
    if reference.output != "job" and reference.output not in making.outputs:
        left = ", ".join([*making.outputs, "job"])
        raise ConfigError(f"{where}: stage {reference.stage} left no {reference.output} in {job_dir}; it left {left}")
    output = job_dir / making.outputs[reference.output].path if reference.output != "job" else job_dir
    place = Path(f"{output}{reference.rest}")
    if not place.exists():
        raise ConfigError(f"{where}: stage {reference.stage} left no {place}")
    return place


def _digest_of_input(stage: Stage, reference: Reference, making: Making, directory: Path) -> str:
    place = place_of(stage, reference, making, directory)
    if reference.rest:
        return content_digest(place)
    return making.digest if reference.output == "job" else making.outputs[reference.output].digest


def _lost(makings: Sequence[Making], directory: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for making in makings:
        for name, output in making.outputs.items():
            path = directory / making.job_dir / output.path
            try:
                if content_digest(path) != output.digest:
                    found[making.number] = f"its {name} was changed: {path}"
            except (OSError, CheckpointCorrupt):
                found[making.number] = f"its {name} is gone: {path}"
    return found
