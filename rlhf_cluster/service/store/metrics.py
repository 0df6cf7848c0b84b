"""Metrics, one narrow row a job, key and step, and the newest row of each key once more, for lists and summaries.

Keys are numbers here: their names would be most of the table.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Executable, Transaction, func, select

from rlhf_cluster.service.store.tables import latest_metrics, metric_keys, metrics
from rlhf_cluster.service.store.upserts import insert_into
from rlhf_cluster.wire.figures import Series

_key_ids: WeakKeyDictionary[Transaction, dict[str, int]] = WeakKeyDictionary()
"""Known only as long as the transaction that saw them: one that is rolled back takes its new keys with it."""


def add(connection: Connection, job_id: str, *, step: int, time_s: float, values: Mapping[str, float | None]) -> None:
    """A step that a resumed job does again replaces what it was; the latest are those of the greatest step."""
    key_ids = _intern(connection, values)
    rows = [
        {"job_id": job_id, "key_id": key_ids[key], "step": step, "time_s": time_s, "value": _finite(value)}
        for key, value in values.items()
    ]
    if not rows:
        return
    every_step, newest_step = _upserts(connection.dialect.name)
    connection.execute(every_step, rows)
    connection.execute(newest_step, rows)


@cache
def _upserts(dialect: str) -> tuple[Executable, Executable]:
    """Made once: building one takes as long as running it on forty rows."""
    every = insert_into(dialect, metrics)
    newer = {name: every.excluded[name] for name in ("time_s", "value")}
    every = every.on_conflict_do_update(index_elements=["job_id", "key_id", "step"], set_=newer)
    newest = insert_into(dialect, latest_metrics)
    newer = {name: newest.excluded[name] for name in ("step", "time_s", "value")}
    is_newer = newest.excluded.step >= latest_metrics.c.step
    newest = newest.on_conflict_do_update(index_elements=["job_id", "key_id"], set_=newer, where=is_newer)
    return every, newest


def _finite(value: float | None) -> float | None:
    try:
        return None if value is None or not math.isfinite(value) else float(value)
    except OverflowError:  # a whole number beyond all floats
        return None


def _intern(connection: Connection, keys: Collection[str]) -> dict[str, int]:
    transaction = connection.get_nested_transaction() or connection.get_transaction()
    known = {} if transaction is None else _key_ids.setdefault(transaction, {})
    for _ in range(2):
        missing = [key for key in keys if key not in known]
        if not missing:
            break
        found = connection.execute(
            select(metric_keys.c.key, metric_keys.c.key_id).where(metric_keys.c.key.in_(missing))
        )
        known.update(found.tuples().all())
        if new := [{"key": key} for key in missing if key not in known]:
            connection.execute(insert_into(connection.dialect.name, metric_keys).on_conflict_do_nothing(), new)
    return known


def keys(connection: Connection, job_id: str) -> list[str]:
    """In the order of the alphabet."""
    query = select(metric_keys.c.key).join(latest_metrics).where(latest_metrics.c.job_id == job_id)
    return list(connection.execute(query.order_by(metric_keys.c.key)).scalars())


def latest(connection: Connection, job_id: str) -> tuple[dict[str, float | None], int]:
    """The newest value of every key, and the newest step; -1 where there is none yet."""
    query = select(metric_keys.c.key, latest_metrics.c.value, latest_metrics.c.step).join(latest_metrics)
    rows = connection.execute(query.where(latest_metrics.c.job_id == job_id).order_by(metric_keys.c.key)).all()
    return {row.key: row.value for row in rows}, max((row.step for row in rows), default=-1)


def series(
    connection: Connection, job_id: str, keys: Sequence[str], *, after_step: int = -1, max_points: int = 2000
) -> list[Series]:
    """One for each of `keys`, empty for an unknown one. Of more than `max_points` rows, stretches of equally many steps
    become one point each: at its last step, with the mean, least and greatest value."""
    key_ids = dict(
        connection.execute(select(metric_keys.c.key, metric_keys.c.key_id).where(metric_keys.c.key.in_(keys)))
        .tuples()
        .all()
    )
    sizes = _sizes(connection, job_id, list(key_ids.values()), after_step=after_step)
    small = [key_id for key_id, (num, _, _) in sizes.items() if num <= max_points]
    points = _rows(connection, job_id, small, after_step=after_step)
    for key_id, (num, first, last) in sizes.items():
        if num > max_points:
            width = -(-(last - first + 1) // max_points)
            points[key_id] = _stretches(connection, job_id, key_id, first=first, width=width)
    return [_columns(key, points.get(key_ids.get(key, -1), [])) for key in keys]


def _sizes(
    connection: Connection, job_id: str, key_ids: Sequence[int], *, after_step: int
) -> dict[int, tuple[int, int, int]]:
    """By key: the number of rows, and their first and last step."""
    step = metrics.c.step
    query = (
        select(metrics.c.key_id, func.count(), func.min(step), func.max(step))
        .where(metrics.c.job_id == job_id, metrics.c.key_id.in_(key_ids), step > after_step)
        .group_by(metrics.c.key_id)
    )
    return {key_id: (num, first, last) for key_id, num, first, last in connection.execute(query).tuples()}


def _rows(
    connection: Connection, job_id: str, key_ids: Sequence[int], *, after_step: int
) -> dict[int, list[tuple[Any, ...]]]:
    query = (
        select(metrics.c.key_id, metrics.c.step, metrics.c.value)
        .where(metrics.c.job_id == job_id, metrics.c.key_id.in_(key_ids), metrics.c.step > after_step)
        .order_by(metrics.c.key_id, metrics.c.step)
    )
    points: dict[int, list[tuple[Any, ...]]] = {}
    for key_id, step, value in connection.execute(query).tuples():
        points.setdefault(key_id, []).append((step, value))
    return points


def _stretches(connection: Connection, job_id: str, key_id: int, *, first: int, width: int) -> list[tuple[Any, ...]]:
    step, value = metrics.c.step, metrics.c.value
    stretch = (step - first) // width
    query = (
        select(func.max(step), func.avg(value), func.min(value), func.max(value))
        .where(metrics.c.job_id == job_id, metrics.c.key_id == key_id, step >= first)
        .group_by(stretch)
        .order_by(stretch)
    )
    return [tuple(row) for row in connection.execute(query)]


def _columns(key: str, points: Sequence[tuple[Any, ...]]) -> Series:
    steps, values, *more = (list(column) for column in zip(*points, strict=True)) if points else ([], [])
    lows, highs = more if more else (None, None)
    return Series(key=key, steps=steps, values=values, lows=lows, highs=highs)
