"""From a pipeline's file and overrides to checked stages in order, before anything runs.

Every stage's job is checked whole, with likely paths where references stand, so that what is wrong with the last stage
is said before the first one begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhf_cluster.config.complaints import describe
from rlhf_cluster.config.load import apply_override, check, find, parse, set_key
from rlhf_cluster.errors import ConfigError, did_you_mean
from rlhf_cluster.pipeline.graph import Stage, ordered
from rlhf_cluster.pipeline.outputs import likely_place
from rlhf_cluster.pipeline.settings import PipelineConfig, StageSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One run of the whole graph: a file gives one for each of its seeds."""

    name: str
    seed: int
    directory: Path
    """Holds the state and the job directories."""
    stages: tuple[Stage, ...]
    """Each after those it needs."""


def find_pipeline(path_or_name: str | Path) -> Path:
    """The file, or that of a pipeline that ships with this package. Raises `ConfigError` naming those."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    ours = Path(str(resources.files("rlhf_cluster.recipes"))) / "pipelines"
    names = sorted(file.stem for file in ours.glob("*.toml"))
    if str(path_or_name) in names:
        return ours / f"{path_or_name}.toml"
    hint = did_you_mean(path_or_name, names) or f"; ours are {', '.join(names)}"
    raise ConfigError(f"{path_or_name}: no such pipeline file, and none of ours has that name{hint}")


def load_pipelines(path: Path, overrides: Sequence[str] = ()) -> tuple[Pipeline, ...]:
    """`overrides` are `key=value` of the pipeline or, with a stage's name in front, of that stage's job:
    `seeds=[1,2]`, `sft.train.num_steps=5`. Raises `ConfigError`."""
    tree = parse(path)
    for override in overrides:
        apply_override(tree, _aimed(override, tree))
    config = _checked(tree, source=str(path))
    seeds = config.seeds or (config.seed,)
    return tuple(_pipeline(config, seed, path) for seed in seeds)


def _aimed(override: str, tree: Mapping[str, Any]) -> str:
    stages = tree.get("stages")
    first = override.partition("=")[0].partition(".")[0].strip()
    is_stage = isinstance(stages, Mapping) and first in stages
    return f"stages.{override.lstrip().replace('.', '.with.', 1)}" if is_stage else override


def _checked(tree: Mapping[str, Any], *, source: str) -> PipelineConfig:
    try:
        return PipelineConfig.model_validate(tree)
    except ValidationError as error:
        lines = [f"  {describe(problem, tree, root=PipelineConfig)}" for problem in error.errors()]
        raise ConfigError("\n".join([f"{source}:", *lines])) from error


def _pipeline(config: PipelineConfig, seed: int, path: Path) -> Pipeline:
    directory = config.output_dir / (f"{config.name}-seed-{seed}" if config.seeds else config.name)
    stages = ordered(
        [
            _stage(name, stage, defaults=config.defaults, seed=seed, directory=directory, source=path)
            for name, stage in config.stages.items()
        ]
    )
    for stage in stages:
        likely = stage.resolved(lambda reference: str(likely_place(directory / f"{reference.stage}-1", reference)))
        check(likely, source=f"{path}: stages.{stage.name}")
    return Pipeline(name=config.name, seed=seed, directory=directory.resolve(), stages=stages)


def _stage(
    name: str, settings: StageSettings, *, defaults: Mapping[str, Any], seed: int, directory: Path, source: Path
) -> Stage:
    where = f"{source}: stages.{name}"
    tree = {**deepcopy(dict(defaults)), "seed": seed}
    own = settings.job if isinstance(settings.job, dict) else parse(_job_file(settings.job, source, where))
    for key, value in _merged(own, tree):
        set_key(tree, key, value, said=f"{where}.job.{key}")
    for key, value in _merged(settings.with_, tree):
        set_key(tree, key, value, said=f"{where}.with.{key}")
    tree |= {"name": name.replace("_", "-"), "output_dir": str(directory)}
    return Stage(name=name, job=check(tree, source=where).model_dump(mode="json"))


def _job_file(job: str, source: Path, where: str) -> Path:
    beside = source.parent / job
    try:
        return beside if beside.is_file() else find(job)
    except ConfigError as error:
        raise ConfigError(f"{where}.job: {error}") from error


def _merged(patch: Mapping[str, Any], tree: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The dotted keys to set: tables are entered, except where one says its `type`, or there is none to enter."""
    for key, value in patch.items():
        below = _below(tree, key)
        enters = isinstance(value, Mapping) and "type" not in value and isinstance(below, Mapping | list)
        if enters:
            yield from _merged(value, below, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _below(tree: Any, key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    for part in key.split("."):
        if isinstance(tree, list) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
