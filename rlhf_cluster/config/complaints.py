"""From pydantic's account of a problem to one line to act on: the key as written, the value, what is allowed."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from rlhf_cluster.algorithms import Algorithm
from rlhf_cluster.algorithms.table import algorithm_class
from rlhf_cluster.config.job import JobConfig
from rlhf_cluster.errors import ConfigError, did_you_mean

# A value may be as large as the file that holds it; a message may not.
SHOWN = reprlib.Repr()
SHOWN.maxstring = SHOWN.maxother = 120


def describe(problem: Mapping[str, Any], tree: Mapping[str, Any], *, root: type[BaseModel] = JobConfig) -> str:
    """`problem` is one of `ValidationError.errors()`, `tree` the job as it was read; `root` is what its file holds."""
    location = list(problem["loc"])
    if problem["type"] == "extra_forbidden":
        where, known = follow(location[:-1], tree, root=root)
        allowed = f"; known: {', '.join(sorted(known))}" if known else ""
        key = ".".join([*where, str(location[-1])])
        return f"{key}: unknown key{did_you_mean(location[-1], known) or allowed}"
    where = ".".join(follow(location, tree, root=root)[0]) or "job"
    if problem["type"] == "missing":
        return f"{where}: missing, and it has no default"
    if problem["type"] == "union_tag_not_found":
        return f"{where}.type: missing; it is one of {_tags(location, tree)}"
    if problem["type"] == "union_tag_invalid":
        tag, expected = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        return f"{where}.type = {tag!r}{did_you_mean(tag, _names(expected))}: it is one of {expected}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if where == "job" else f"{where}: {message}"
    return f"{where} = {SHOWN.repr(problem['input'])}: {message[:1].lower()}{message[1:]}"


def follow(
    location: Sequence[Any], tree: Mapping[str, Any], *, root: type[BaseModel] = JobConfig
) -> tuple[list[str], list[str]]:
    """The keys of `location` as they stand in the file, without the tags that unions put between them, and the keys
    that are allowed there ([] where that is no table of ours)."""
    written, annotation = _walk(location, tree, root=root)
    models = models_of(annotation)
    fields = models[0].model_fields if len(models) == 1 else {}
    return written, [field.alias or name for name, field in fields.items()]


def _walk(
    location: Sequence[Any], tree: Mapping[str, Any], *, root: type[BaseModel] = JobConfig
) -> tuple[list[str], Any]:
    """The keys as written, and the annotation of what stands there."""
    written: list[str] = []
    annotation: Any = root
    for part in location:
        choices = {_tag(model): model for model in models_of(annotation)}
        if len(choices) > 1 and part in choices:
            annotation = choices[part]
            continue
        written.append(str(part))
        annotation = _below(annotation, part, tree)
    return written, annotation


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that a field of this annotation may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return models_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [model for member in get_args(annotation) for model in models_of(member)]
    return []


def _below(annotation: Any, part: Any, tree: Mapping[str, Any]) -> Any:
    """Annotation of the field or the list element `part`; None where there is nothing of ours."""
    models = models_of(annotation)
    if len(models) == 1 and part in models[0].model_fields:
        below = models[0].model_fields[part].annotation
        return _algorithm_of(tree) if below is Algorithm else below
    if get_origin(annotation) is dict:
        return get_args(annotation)[1]
    return get_args(annotation)[0] if isinstance(part, int) and get_origin(annotation) is tuple else None


def _algorithm_of(tree: Mapping[str, Any]) -> type[Algorithm]:
    """The class that the file names; the base, which has no fields, when that is the very problem."""
    table = tree.get("algorithm")
    try:
        return algorithm_class(table.get("type")) if isinstance(table, Mapping) else Algorithm
    except ConfigError:
        return Algorithm


def _tag(model: type[BaseModel]) -> str:
    return str(model.model_fields["type"].default) if "type" in model.model_fields else ""


def _tags(location: Sequence[Any], tree: Mapping[str, Any]) -> str:
    return ", ".join(repr(_tag(model)) for model in models_of(_walk(location, tree)[1]))


def _names(expected: str) -> list[str]:
    return [name.strip(" '") for name in expected.split(",")]
