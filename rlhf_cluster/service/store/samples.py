"""Completions with their rewards, from the sample files of a job: each file once, and at most so many rows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, or_, select, tuple_

from rlhf_cluster.service.store import cursors
from rlhf_cluster.service.store.tables import sample_files, samples
from rlhf_cluster.service.store.upserts import insert_into

Sort = Literal["newest", "reward", "-reward"]
PART = "reward/"
COLUMNS = ("step", "request_id", "prompt_id", "prompt", "completion", "reward", "length")
"""Of a sample file, with columns of their own here; `reward/...` becomes the breakdown, the others the body."""
MAX_GROUPS = 1_000_000


def add_file(
    connection: Connection, job_id: str, name: str, table_rows: Sequence[Mapping[str, Any]], *, keep: int
) -> bool:
    """Take in `step-000012.parquet` or `eval-000000.parquet`; False where it was. Of more than `keep` rows, whole
    groups are kept: those with the greatest and the least reward, and others spread evenly over the file."""
    statement = (
        insert_into(connection.dialect.name, sample_files).on_conflict_do_nothing().returning(sample_files.c.name)
    )
    values = {"job_id": job_id, "name": name, "num_rows": len(table_rows)}
    if connection.execute(statement, values).one_or_none() is None:
        return False
    kind = name.partition("-")[0]
    rows = [_row(row, job_id=job_id, kind=kind, group=group) for group, row in _kept(_groups(table_rows), keep=keep)]
    if rows:
        connection.execute(insert(samples), rows)
    return True


def _groups(table_rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The rows of a file stand in the order of their groups."""
    return [list(rows) for _, rows in groupby(table_rows, key=lambda row: (row.get("request_id"), row["prompt_id"]))]


def _kept(groups: list[list[Mapping[str, Any]]], *, keep: int) -> list[tuple[int, Mapping[str, Any]]]:
    """Rows with the number of their group in the file."""
    num_groups = len(groups)
    if sum(map(len, groups)) > keep:
        num_groups = max(1, keep // max(map(len, groups)))
    order = sorted(range(len(groups)), key=lambda index: _best(groups[index]))
    spread = {index * len(groups) // num_groups for index in range(num_groups)}
    wanted = dict.fromkeys([*order[-1:], *order[:1], *sorted(spread)])
    chosen = sorted(list(wanted)[:num_groups])
    return [(index, row) for index in chosen for row in groups[index]][:keep]


def _best(group: Sequence[Mapping[str, Any]]) -> float:
    rewards = [row["reward"] for row in group if row.get("reward") is not None and math.isfinite(row["reward"])]
    return max(rewards, default=-math.inf)


def _row(row: Mapping[str, Any], *, job_id: str, kind: str, group: int) -> dict[str, Any]:
    request_id = row.get("request_id")
    reward = row.get("reward")
    return {
        "job_id": job_id,
        "kind": kind,
        "step": row["step"],
        # A file without them: siblings still have a number in common that no other group of the job has.
        "request_id": row["step"] * MAX_GROUPS + group if request_id is None else request_id,
        "prompt_id": row["prompt_id"],
        "prompt": row["prompt"],
        "completion": row["completion"],
        "reward": None if reward is None or not math.isfinite(reward) else reward,
        "breakdown": {key.removeprefix(PART): value for key, value in row.items() if key.startswith(PART)},
        "num_tokens": row["length"],
        "body": {key: value for key, value in row.items() if key not in COLUMNS and not key.startswith(PART)},
    }


def files(connection: Connection, job_id: str) -> list[str]:
    """The names of those that were taken in, sorted."""
    query = select(sample_files.c.name).where(sample_files.c.job_id == job_id).order_by(sample_files.c.name)
    return list(connection.execute(query).scalars())


def steps(connection: Connection, job_id: str) -> Sequence[Row]:
    """`kind`, `step` and `num_samples` of each file that has any, newest first."""
    query = select(samples.c.kind, samples.c.step, func.count().label("num_samples"))
    grouped = query.where(samples.c.job_id == job_id).group_by(samples.c.kind, samples.c.step)
    return connection.execute(grouped.order_by(samples.c.step.desc(), samples.c.kind)).all()


def get(connection: Connection, job_id: str, sample_id: int) -> Row | None:
    query = select(samples).where(samples.c.job_id == job_id, samples.c.sample_id == sample_id)
    return connection.execute(query).one_or_none()


def page(
    connection: Connection,
    job_id: str,
    *,
    limit: int,
    cursor: str | None = None,
    step: int | None = None,
    kind: str | None = None,
    min_reward: float | None = None,
    max_reward: float | None = None,
    q: str | None = None,
    request_id: int | None = None,
    sort: Sort = "newest",
) -> tuple[Sequence[Row], str | None]:
    """By step, newest first, or by reward: `reward` begins with the least, `-reward` with the greatest, and those
    without one come last. Also the cursor of those that follow; raises `ValueError` for one of another order."""
    query = select(samples).where(samples.c.job_id == job_id)
    for column, value in ((samples.c.step, step), (samples.c.kind, kind), (samples.c.request_id, request_id)):
        if value is not None:
            query = query.where(column == value)
    if min_reward is not None:
        query = query.where(samples.c.reward >= min_reward)
    if max_reward is not None:
        query = query.where(samples.c.reward <= max_reward)
    if q:
        query = query.where(
            or_(*(text.icontains(q, autoescape=True) for text in (samples.c.prompt, samples.c.completion)))
        )
    query, keys = _sorted(query, sort, cursor)
    return cursors.page(connection.execute(query.limit(limit + 1)).all(), limit, *keys)


def _sorted(query: Select[Any], sort: Sort, cursor: str | None) -> tuple[Select[Any], tuple[str, ...]]:
    step, reward, sample_id = samples.c.step, samples.c.reward, samples.c.sample_id
    if sort == "newest":
        if cursor is not None:
            query = query.where(tuple_(step, sample_id) < tuple_(*cursors.decode(cursor, int, int)))
        return query.order_by(step.desc(), sample_id.desc()), ("step", "sample_id")
    if cursor is not None:
        query = query.where(_beyond(sort, *cursors.decode(cursor, float, int)))
    order = reward.asc() if sort == "reward" else reward.desc()
    return query.order_by(order.nulls_last(), sample_id), ("reward", "sample_id")


def _beyond(sort: Sort, last_reward: float | None, last_id: int) -> ColumnElement[bool]:
    reward, sample_id = samples.c.reward, samples.c.sample_id
    if last_reward is None:
        return and_(reward.is_(None), sample_id > last_id)
    further = reward > last_reward if sort == "reward" else reward < last_reward
    return or_(further, and_(reward == last_reward, sample_id > last_id), reward.is_(None))
