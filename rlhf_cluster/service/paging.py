"""How lists are asked for: so many items, after a cursor that an earlier page gave."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Query

from rlhf_cluster.service.problems import ApiProblem

MAX_LIMIT = 200

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items at most.")]
Cursor = Annotated[str | None, Query(max_length=1000, description="`next_cursor` of the page before.")]


@contextmanager
def cursor_checked() -> Generator[None]:
    """Around the one store function that reads the cursor: a cursor that no page gave is the client's fault."""
    try:
        yield
    except ValueError as error:
        raise ApiProblem(422, "invalid_cursor", str(error)) from error
