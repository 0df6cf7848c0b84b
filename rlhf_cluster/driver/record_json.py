"""Records of words and numbers as JSON, and back with every field checked; for the files of a job's directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from rlhf_cluster.errors import did_you_mean

Record = TypeVar("Record")
NAMES = {str: "text", int: "a whole number", float: "a number"}


def parse_object(text: str) -> dict[str, Any]:
    """Raises `ValueError` where `text` is no JSON object."""
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    return data


def build(kind: type[Record], data: Mapping[str, Any], *, extra: bool) -> Record:
    """The record of class `kind` whose fields are in `data`.

    Fields are text, numbers, or tuples of such records. `extra` allows fields that the class does not have, as a file
    of a newer version may hold. Raises `ValueError` naming the field.
    """
    types = get_type_hints(kind)
    unknown = [name for name in data if name not in types]
    if unknown and not extra:
        known = f"; {kind.__name__} has {', '.join(types) or 'no fields'}"
        raise ValueError(f"unknown field {unknown[0]!r}{did_you_mean(unknown[0], types) or known}")
    fields = {name: _field(name, data[name], types[name], extra=extra) for name in types if name in data}
    needed = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}  # ty: ignore[invalid-argument-type]
    if needed - fields.keys():
        raise ValueError(f"field {min(needed - fields.keys())!r} is missing")
    return kind(**fields)


def _field(name: str, value: Any, annotation: Any, *, extra: bool) -> Any:
    if get_origin(annotation) is tuple:
        kind = get_args(annotation)[0]
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise ValueError(f"{name} has to be a list of objects")
        return tuple(build(kind, item, extra=extra) for item in value)
    if annotation is float and type(value) is int:
        return float(value)
    if type(value) is not annotation:  # True is an int to Python, and no number of workers
        raise ValueError(f"{name} = {json.dumps(value)[:80]} has to be {NAMES[annotation]}")
    return value
