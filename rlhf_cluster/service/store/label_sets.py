"""Sets of pairs that people judge: made, grown, listed with how far they are, read for an export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, insert, select, tuple_
from sqlalchemy import delete as delete_from

from rlhf_cluster.service.ids import new_id
from rlhf_cluster.service.store import cursors
from rlhf_cluster.service.store.columns import storable_text
from rlhf_cluster.service.store.tables import label_pairs, label_sets
from rlhf_cluster.wire.labels import NewPair


def add(
    connection: Connection, *, name: str, created_by: str, seed: int, overlap: int, guidelines: str, now_s: float
) -> Row | None:
    """An empty set; None where there is one of that name."""
    if get(connection, name) is not None:
        return None
    connection.execute(
        insert(label_sets).values(
            set_id=new_id("lset"),
            name=name,
            created_by=created_by,
            created_s=now_s,
            seed=seed,
            overlap=overlap,
            guidelines=guidelines,
        )
    )
    return get(connection, name)


def get(connection: Connection, name: str) -> Row | None:
    return connection.execute(select(label_sets).where(label_sets.c.name == name)).one_or_none()


def add_pairs(connection: Connection, set_id: str, pairs: Sequence[NewPair]) -> None:
    """After those that are there. Raises `ValueError` for an id that another pair of the set has."""
    first = connection.execute(select(func.count()).where(label_pairs.c.set_id == set_id)).scalar_one()
    known = set(connection.execute(select(label_pairs.c.pair_id).where(label_pairs.c.set_id == set_id)).scalars())
    rows: list[dict[str, Any]] = []
    for number, pair in enumerate(pairs, first):
        pair_id = storable_text(pair.pair_id) if pair.pair_id is not None else str(number)
        if pair_id in known:
            raise ValueError(f"pairs.{number - first}.pair_id = {pair_id!r} is that of another pair: give each its own")
        known.add(pair_id)
        completion_a, completion_b = pair.completions
        rows.append(
            {
                "set_id": set_id,
                "number": number,
                "pair_id": pair_id,
                "prompt": pair.model_dump(include={"prompt"})["prompt"],
                "completion_a": completion_a,
                "completion_b": completion_b,
                "provenance": pair.provenance,
            }
        )
    connection.execute(insert(label_pairs), rows)


def _with_progress() -> Select[*tuple[Any, ...]]:
    """Sets with `num_pairs`, `num_labels` and `num_done`."""
    is_done = case((label_pairs.c.num_labels >= label_sets.c.overlap, 1), else_=0)
    figures: tuple[ColumnElement[Any], ...] = (
        func.count(label_pairs.c.number).label("num_pairs"),
        func.coalesce(func.sum(label_pairs.c.num_labels), 0).label("num_labels"),
        func.coalesce(func.sum(is_done), 0).label("num_done"),
    )
    joined = label_sets.join(label_pairs, isouter=True)
    return select(*label_sets.c, *figures).select_from(joined).group_by(label_sets.c.set_id)


def progress(connection: Connection, name: str) -> Row | None:
    """The set with how far it is, which takes counting its pairs."""
    return connection.execute(_with_progress().where(label_sets.c.name == name)).one_or_none()


def page(connection: Connection, *, limit: int, cursor: str | None = None) -> tuple[Sequence[Row], str | None]:
    """Newest first, and the cursor of those that follow. Raises `ValueError` for a cursor that is none."""
    order = (label_sets.c.created_s, label_sets.c.set_id)
    query = _with_progress().order_by(*(key.desc() for key in order)).limit(limit + 1)
    if cursor is not None:
        query = query.where(tuple_(*order) < tuple_(*cursors.decode(cursor, float, str)))
    return cursors.page(connection.execute(query).all(), limit, "created_s", "set_id")


def pairs_from(connection: Connection, set_id: str, first: int, *, limit: int, min_labels: int) -> Sequence[Row]:
    """Pairs with at least so many labels, in their order, from number `first` on."""
    query = select(label_pairs).where(
        label_pairs.c.set_id == set_id, label_pairs.c.number >= first, label_pairs.c.num_labels >= min_labels
    )
    return connection.execute(query.order_by(label_pairs.c.number).limit(limit)).all()


def delete(connection: Connection, set_id: str) -> None:
    """With its pairs and all labels."""
    connection.execute(delete_from(label_sets).where(label_sets.c.set_id == set_id))
