"""What a job says beside the defaults: the dotted keys of its whole config that differ from them, and those that have
none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from rlhf_cluster.algorithms import ALGORITHMS, Algorithm
from rlhf_cluster.config.complaints import models_of
from rlhf_cluster.config.job import JobConfig


def changed(config: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train.num_steps": 100, ...}`; `config` is `JobConfig.model_dump(mode="json")`, of this version or another.

    Checks nothing and imports nothing: a key that this version does not know counts as changed.
    """
    return dict(_of_table(config, JobConfig, _defaults(JobConfig), ""))


def _of_table(
    table: Mapping[str, Any], model: type[BaseModel] | None, defaults: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if key in defaults and defaults[key] == value:
            continue
        field = model.model_fields.get(key) if model else None
        yield from _of_value(value, field.annotation if field else None, defaults.get(key), f"{prefix}{key}")


def _of_value(value: Any, annotation: Any, default: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (model := _model_of(value, annotation)):
        usual = default if isinstance(default, Mapping) else {}
        if usual.get("type") != value.get("type"):
            yield f"{key}.type", value["type"]
            usual = {}
        yield from _of_table(value, model, usual or _defaults(model), f"{key}.")
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        (element,) = getattr(annotation, "__args__", (None, ...))[:1]
        for index, each in enumerate(value):
            yield from _of_value(each, element, None, f"{key}.{index}")
    else:
        yield key, value


def _model_of(table: Mapping[str, Any], annotation: Any) -> type[BaseModel] | None:
    """The settings class that `table` describes; None where it is none of ours."""
    if annotation is Algorithm:
        return ALGORITHMS.get(table.get("type", ""))
    models = models_of(annotation)
    same = [model for model in models if "type" in model.model_fields and _defaults(model)["type"] == table.get("type")]
    return next(iter(same or (models if len(models) == 1 else ())), None)


@cache
def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """As JSON, of the fields that have one."""
    return {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
