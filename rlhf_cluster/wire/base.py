"""What all messages share, and the two shapes that many of them have: a page of items, and a problem (RFC 9457)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Item = TypeVar("Item")


class Message(BaseModel):
    """An answer; what a newer service adds is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True)


class Request(BaseModel):
    """What a client sends; a field that does not exist is refused by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Figure = Annotated[float | None, BeforeValidator(_finite)]
"""A number, or null where it is not finite: JSON has no word for that."""


class Page(Message, Generic[Item]):
    """Items, newest first unless said otherwise."""

    items: list[Item]
    next_cursor: str | None = None
    """Give it as `cursor` for the items that follow; null at the end."""


class FieldProblem(Message):
    loc: str
    """Dotted, as in the job file: `train.num_steps`."""
    msg: str


class Problem(Message):
    """Every answer that is no success (RFC 9457, `application/problem+json`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """One sentence: the value, what is allowed, what to change."""
    instance: str = ""
    code: str
    """For programs: `not_found`, `pool_not_elastic`, ..."""
    errors: list[FieldProblem] = Field(default_factory=list)
    request_id: str = ""
