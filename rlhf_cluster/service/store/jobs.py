"""Jobs: submitted, found, listed, changed by people, and followed through their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, exists, func, insert, or_, select, tuple_, update
from sqlalchemy import delete as delete_from

from rlhf_cluster.errors import did_you_mean
from rlhf_cluster.service.ids import new_id
from rlhf_cluster.service.store import cursors
from rlhf_cluster.service.store.tables import jobs
from rlhf_cluster.wire.jobs import OVER

NUM_NAMES = 200
"""Newest ones among which a mistyped name is looked for."""
NEWEST_FIRST = (jobs.c.created_s.desc(), jobs.c.job_id.desc())


def add(
    connection: Connection,
    *,
    name: str,
    owner: str,
    labels: Mapping[str, str],
    notes: str,
    source: str,
    config: Mapping[str, Any],
    num_steps: int,
    max_attempts: int,
    bundle_sha256: str | None,
    now_s: float,
) -> Row:
    """A job that waits for its first attempt."""
    job_id = new_id("job")
    connection.execute(
        insert(jobs).values(
            job_id=job_id,
            name=name,
            owner=owner,
            labels=dict(labels),
            notes=notes,
            source=source,
            config=dict(config),
            num_steps=num_steps,
            max_attempts=max_attempts,
            bundle_sha256=bundle_sha256,
            wanted="run",
            wanted_s=now_s,
            state="queued",
            created_s=now_s,
        )
    )
    return connection.execute(select(jobs).where(jobs.c.job_id == job_id)).one()


def get(connection: Connection, job_id: str) -> Row | None:
    return connection.execute(select(jobs).where(jobs.c.job_id == job_id)).one_or_none()


def find(connection: Connection, ref: str) -> Row:
    """The job that people mean by an id, the beginning of one, a name (its newest job), or `@last`.

    Raises `LookupError` with a sentence for them.
    """
    if ref == "@last":
        newest = _newest(connection, select(jobs))
        if newest is None:
            raise LookupError("there is no job yet; `rlhf submit` makes one")
        return newest
    found = get(connection, ref) or _newest(connection, select(jobs).where(jobs.c.name == ref))
    return found if found is not None else _beginning_with(connection, ref)


def _newest(connection: Connection, which: Select[Any]) -> Row | None:
    return connection.execute(which.order_by(*NEWEST_FIRST).limit(1)).one_or_none()


def _newest_names(connection: Connection) -> list[str]:
    query = select(jobs.c.name).order_by(*NEWEST_FIRST).limit(NUM_NAMES)
    return list(dict.fromkeys(connection.execute(query).scalars()))


def _beginning_with(connection: Connection, ref: str) -> Row:
    starts = jobs.c.job_id.startswith(ref, autoescape=True)
    rows = connection.execute(select(jobs).where(starts).order_by(*NEWEST_FIRST).limit(3)).all() if ref else []
    if not rows:
        hint = did_you_mean(ref, _newest_names(connection))
        raise LookupError(f"there is no job {ref!r}{hint}; give an id, the beginning of one, a name, or @last")
    if len(rows) > 1:
        few = ", ".join(row.job_id for row in rows[:2])
        raise LookupError(
            f"{ref!r} begins the ids of several jobs ({few}{', ...' if len(rows) > 2 else ''}); give more"
        )
    return rows[0]


def page(
    connection: Connection,
    *,
    limit: int,
    cursor: str | None = None,
    states: Sequence[str] | None = None,
    name: str | None = None,
    owner: str | None = None,
    label: str | None = None,
    q: str | None = None,
) -> tuple[Sequence[Row], str | None]:
    """Newest first, and the cursor of those that follow. `label` is `key=value`, or a key with any value; `q` is part
    of an id, a name, the notes or the message. Raises `ValueError` for a cursor that is none."""
    query = select(jobs).order_by(*NEWEST_FIRST).limit(limit + 1)
    if cursor is not None:
        query = query.where(tuple_(jobs.c.created_s, jobs.c.job_id) < tuple_(*cursors.decode(cursor, float, str)))
    if states is not None:
        query = query.where(jobs.c.state.in_(states))
    if name is not None:
        query = query.where(jobs.c.name == name)
    if owner is not None:
        query = query.where(jobs.c.owner == owner)
    if label is not None:
        query = query.where(_has_label(connection, label))
    if q:
        seen = (jobs.c.job_id, jobs.c.name, jobs.c.notes, jobs.c.message)
        query = query.where(or_(*(column.icontains(q, autoescape=True) for column in seen)))
    return cursors.page(connection.execute(query).all(), limit, "created_s", "job_id")


def _has_label(connection: Connection, label: str) -> ColumnElement[bool]:
    key, has_value, value = label.partition("=")
    # Each database has its own word for a JSON object as a table.
    each = func.json_each_text if connection.dialect.name == "postgresql" else func.json_each
    pairs = each(jobs.c.labels).table_valued("key", "value", name="pairs")
    found = select(pairs.c.key).where(pairs.c.key == key)
    return exists(found.where(pairs.c.value == value) if has_value else found)


def unfinished(connection: Connection) -> Sequence[Row]:
    """Rows of `job_id` alone, oldest first: whole ones are large, and this is asked every second."""
    query = select(jobs.c.job_id).where(jobs.c.state.not_in(OVER)).order_by(jobs.c.created_s, jobs.c.job_id)
    return connection.execute(query).all()


def want(connection: Connection, job_id: str, wanted: str, *, now_s: float) -> None:
    """`run`, `cancel` or `kill`. Wanting the same again does not begin the wait for it anew."""
    connection.execute(
        update(jobs).where(jobs.c.job_id == job_id, jobs.c.wanted != wanted).values(wanted=wanted, wanted_s=now_s)
    )


def change(connection: Connection, job_id: str, *, version: int, **fields: Any) -> Row | None:
    """Change what belongs to people; None where `version` is not the current one, or there is no such job."""
    done = connection.execute(
        update(jobs)
        .where(jobs.c.job_id == job_id, jobs.c.version == version)
        .values(**fields, version=jobs.c.version + 1)
    )
    return get(connection, job_id) if done.rowcount == 1 else None


def set_state(connection: Connection, job_id: str, state: str, *, message: str, now_s: float) -> None:
    """A job has started when it first runs. It has ended when it is over, until it is tried again."""
    values: dict[str, Any] = {"state": state, "message": message}
    if state == "running":
        values["started_s"] = func.coalesce(jobs.c.started_s, now_s)
    values["ended_s"] = func.coalesce(jobs.c.ended_s, now_s) if state in OVER else None
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(values))


def saw(connection: Connection, job_id: str, view: Mapping[str, Any], *, now_s: float) -> None:
    """The newest `JobView` of its driver."""
    seen = {"view": dict(view), "view_s": now_s, "step": view["step"], "num_steps": view["num_steps"]}
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(seen))


def took(connection: Connection, job_id: str, *, num_entries: int) -> None:
    """So many entries of its journal are in; in the transaction that took them in, so that none is taken twice."""
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(num_entries=num_entries))


def delete(connection: Connection, job_id: str) -> None:
    """With all that belongs to it."""
    connection.execute(delete_from(jobs).where(jobs.c.job_id == job_id))
