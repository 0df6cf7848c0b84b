"""Cursors of lists: the sort keys of the last row that was given, so that rows that come meanwhile move nothing."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

MAX_INTEGER = 2**63 - 1


def encode(*keys: str | float | None) -> str:
    packed = json.dumps(keys, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode(cursor: str, *kinds: type[str] | type[int] | type[float]) -> list[Any]:
    """The keys of `encode`, one of each kind; a float may be None. Raises `ValueError` for what no list has given."""
    try:
        packed = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        keys = json.loads(packed, parse_constant=float)
    except (ValueError, binascii.Error, RecursionError):
        keys = None
    if not isinstance(keys, list) or len(keys) != len(kinds) or not all(map(_is, keys, kinds)):
        raise ValueError(f"cursor = {cursor[:80]!r}: give the next_cursor of the page before, or none for the first")
    return keys


def page(rows: Sequence[Row], limit: int, *keys: str) -> tuple[Sequence[Row], str | None]:
    """The first `limit` of `rows`, of which one more than that was asked for, and the cursor of those that follow."""
    if len(rows) <= limit:
        return rows, None
    last = rows[limit - 1]
    return rows[:limit], encode(*(getattr(last, key) for key in keys))


def _is(key: Any, kind: type) -> bool:
    if kind is str:
        return isinstance(key, str)
    if key is None or isinstance(key, float):
        return kind is float and (key is None or math.isfinite(key))
    # More than that fits into no column, and SQLite's driver would fail on it.
    return isinstance(key, int) and not isinstance(key, bool) and abs(key) <= MAX_INTEGER
