"""From a job file and command-line overrides to a checked `JobConfig`, with errors that say what to change."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rlhf_cluster.config.complaints import describe
from rlhf_cluster.config.job import JobConfig
from rlhf_cluster.errors import ConfigError, did_you_mean

MAX_FILE_BYTES = 256 * 1024
MAX_VALUES = 100_000
"""Of a job file once YAML's aliases are written out: a short file can mean an endless one."""
JOB_FILE = "job.json"
"""The checked job in its directory, every default written out."""


def load_job(path_or_recipe: str | Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Read a TOML or YAML file, or a recipe by name; apply `a.b=value` overrides; check everything.

    Raises `ConfigError` with every problem, one a line, each naming the key, the value and what is allowed.
    """
    path = find(path_or_recipe)
    tree = parse(path)
    for override in overrides:
        apply_override(tree, override)
    return check(tree, source=str(path_or_recipe))


def find(path_or_recipe: str | Path) -> Path:
    path = Path(path_or_recipe)
    if path.is_file():
        return path
    names = recipe_names()
    if str(path_or_recipe) in names:
        return Path(str(resources.files("rlhf_cluster.recipes") / f"{path_or_recipe}.toml"))
    hint = did_you_mean(path_or_recipe, names) or f"; recipes are {', '.join(names)}"
    raise ConfigError(f"{path_or_recipe}: no such job file, and no recipe has that name{hint}")


def recipe_names() -> list[str]:
    files = resources.files("rlhf_cluster.recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def parse(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: {path.stat().st_size} bytes; a job file has at most {MAX_FILE_BYTES}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not readable as {_language(path.suffix == '.toml')}: {error}") from error
    return parse_text(text, is_toml=path.suffix == ".toml", source=str(path))


def parse_text(text: str, *, is_toml: bool, source: str) -> dict[str, Any]:
    """`source` names the text in errors."""
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(f"{source}: {len(text)} characters; a job file has at most {MAX_FILE_BYTES}")
    try:
        tree = tomllib.loads(text) if is_toml else _from_yaml(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:  # both languages may hold what Python cannot
        raise ConfigError(f"{source}: not readable as {_language(is_toml)}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: holds {type(tree).__name__}, a job file is a table of settings")
    return tree


def _language(is_toml: bool) -> str:
    return "TOML" if is_toml else "YAML"


def _from_yaml(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if _num_values(node, {}) > MAX_VALUES:
            raise ValueError(f"with its aliases written out it has more than {MAX_VALUES} values")
        return loader.construct_document(node) if node else None
    finally:
        loader.dispose()


def _num_values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Values in all, those of an alias counted wherever it stands. Raises `RecursionError` for what holds itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        children = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_num_values(child, known) for child in children)
    return known[id(node)]


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one dotted key in place: `train.num_steps=5`, `rewards.0.weight=0.5`, `learner.optimizer.lr=1e-4`.

    The value is read as TOML, and as a plain string where it is no TOML value.
    """
    key, equals, raw = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value, such as train.num_steps=5")
    set_key(tree, key.strip(), _value(raw), said=f"override {override!r}")


def set_key(tree: dict[str, Any], key: str, value: Any, *, said: str) -> None:
    """Set one dotted key in place; tables that are not there are made. `said` names the wish in errors."""
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = _child(node, part, said)
    if isinstance(node, list):
        node[_index(node, last, said)] = value
    else:
        node[last] = value


def _child(node: Any, part: str, said: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, said)]
    child = node.setdefault(part, {})
    if not isinstance(child, dict | list):
        raise ConfigError(f"{said}: {part} is the value {child!r}, not a table")
    return child


def _index(node: list[Any], part: str, said: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", part) or int(part) >= len(node):
        raise ConfigError(f"{said}: {part!r} is no index of a list of {len(node)}")
    return int(part)


def _value(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except (ValueError, RecursionError):  # no TOML, or more than Python can hold
        return raw


def check(tree: Mapping[str, Any], *, source: str, runs_outside_code: bool = True) -> JobConfig:
    """The job of `tree`. An algorithm by import path is imported for it, unless `runs_outside_code` is false: then its
    hyper-parameters are taken as they are."""
    try:
        return JobConfig.model_validate(tree, context={"runs_outside_code": runs_outside_code})
    except ValidationError as error:
        told = tree if runs_outside_code else {**tree, "algorithm": {}}
        lines = [f"  {describe(problem, told)}" for problem in error.errors()]
        raise ConfigError("\n".join([f"{source}:", *lines])) from error


def read_job(job_dir: Path) -> JobConfig:
    """The job that ran, or runs, in `job_dir`. Raises `ConfigError` where there is none or it cannot be read."""
    job_file = job_dir / JOB_FILE
    if not job_file.is_file():
        raise ConfigError(f"{job_dir} is no job directory: it holds no {JOB_FILE}")
    try:
        tree = json.loads(job_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{job_file} cannot be read as JSON: {error}. Restore it from a copy") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{job_file} holds {type(tree).__name__} and not a table of settings. Restore it from a copy")
    return check(tree, source=str(job_file))


def job_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a job file."""
    schema = JobConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(json.dumps(schema))}
