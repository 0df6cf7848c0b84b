"""Text and JSON columns that hold whatever a job writes, on both databases alike.

PostgreSQL takes no NUL in a text, no number that is not finite in JSON and no text longer than its column; neither
takes half of a surrogate pair. A model's completion can hold all of these, and must not stop what is sent with it.
"""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import JSON, Dialect, String, Text, TypeDecorator

MAX_LEVELS = 100
"""Of nested JSON: answers can be made of 250, and one that cannot be made ends the event streams of everybody."""
TOO_DEEP = "(nested too deep to be kept)"


class Words(TypeDecorator[str]):
    """Text of any length, or `Words(40)`, of which more is cut off."""

    impl = String
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)
        self.length = length
        if length is None:
            self.impl = Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable_text(value)[: self.length]

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return Words()  # what is looked for is not cut: it would find what only begins like it


class Json(TypeDecorator[Any]):
    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return storable(value)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)


def storable_text(value: str) -> str:
    """NUL becomes the replacement character, half a surrogate pair a question mark."""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def storable(value: Any, *, levels: int = MAX_LEVELS) -> Any:
    """JSON data with its texts made storable, null for numbers that are not finite, and a word for what lies deeper
    than `levels`."""
    match value:
        case str():
            return storable_text(value)
        case float():
            return value if math.isfinite(value) else None
        case dict() | list() | tuple() if not levels:
            return TOO_DEEP
        case dict():
            return {storable_text(str(key)): storable(item, levels=levels - 1) for key, item in value.items()}
        case list() | tuple():
            return [storable(item, levels=levels - 1) for item in value]
    return value
