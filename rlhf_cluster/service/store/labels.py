"""What people say of pairs, and which pair each of them has before them.

A slot is taken by a lease: one a person and set, for a time. The transaction that gives a pair is the only one that
writes, so no two people are given the last slot of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, insert, select, update

from rlhf_cluster.flow.labelling import Choice, Completion, next_pair
from rlhf_cluster.service.store.tables import label_leases, label_pairs, labels
from rlhf_cluster.service.store.upserts import insert_into


def give(connection: Connection, label_set: Row, labeler: str, *, now_s: float, lease_s: float) -> Row | None:
    """The pair that this person has before them, from now for `lease_s`: the one that they had, or the next; None where
    there is none for them now."""
    had = leased(connection, label_set.set_id, labeler)
    if had is not None and is_free(connection, label_set, had.number, labeler, now_s=now_s):
        number = had.number
    else:
        number = _next(connection, label_set, labeler, now_s=now_s)
    if number is None:
        return None
    lease(connection, label_set.set_id, labeler, number, until_s=now_s + lease_s)
    return leased(connection, label_set.set_id, labeler)


def _next(connection: Connection, label_set: Row, labeler: str, *, now_s: float) -> int | None:
    taken = _taken(connection, label_set.set_id, labeler, now_s=now_s)
    # Of so many at least one is at nobody else's, and none beyond them has fewer labels.
    query = select(label_pairs.c.number, label_pairs.c.num_labels).where(*_open_to(label_set, labeler))
    query = query.order_by(label_pairs.c.num_labels, label_pairs.c.number).limit(len(taken) + 1)
    return next_pair(connection.execute(query).tuples().all(), taken, overlap=label_set.overlap)


def _open_to(label_set: Row, labeler: str) -> tuple[ColumnElement[bool], ...]:
    """Pairs that want labels and of which this person has said nothing."""
    own = exists().where(
        labels.c.set_id == label_pairs.c.set_id,
        labels.c.number == label_pairs.c.number,
        labels.c.labeler == labeler,
        labels.c.undone_s.is_(None),
    )
    return label_pairs.c.set_id == label_set.set_id, label_pairs.c.num_labels < label_set.overlap, ~own


def _taken(connection: Connection, set_id: str, labeler: str, *, now_s: float) -> Mapping[int, int]:
    """Pair -> how many others have it before them."""
    query = select(label_leases.c.number, func.count()).where(
        label_leases.c.set_id == set_id, label_leases.c.labeler != labeler, label_leases.c.until_s > now_s
    )
    return dict(connection.execute(query.group_by(label_leases.c.number)).tuples().all())


def is_free(connection: Connection, label_set: Row, number: int, labeler: str, *, now_s: float) -> bool:
    """Whether the pair still has a slot for this person: theirs is kept only as long as its lease lasts."""
    query = select(label_pairs.c.number, label_pairs.c.num_labels)
    row = connection.execute(query.where(*_open_to(label_set, labeler), label_pairs.c.number == number)).one_or_none()
    if row is None:
        return False
    taken = _taken(connection, label_set.set_id, labeler, now_s=now_s)
    return next_pair([(row.number, row.num_labels)], taken, overlap=label_set.overlap) is not None


def leased(connection: Connection, set_id: str, labeler: str) -> Row | None:
    """The pair that this person was given last and has said nothing of yet, with `until_s`."""
    with_pair = label_leases.join(
        label_pairs,
        and_(label_pairs.c.set_id == label_leases.c.set_id, label_pairs.c.number == label_leases.c.number),
    )
    query = select(label_pairs, label_leases.c.until_s).select_from(with_pair)
    query = query.where(label_leases.c.set_id == set_id, label_leases.c.labeler == labeler)
    return connection.execute(query).one_or_none()


def lease(connection: Connection, set_id: str, labeler: str, number: int, *, until_s: float) -> None:
    values = {"set_id": set_id, "labeler": labeler, "number": number, "until_s": until_s}
    statement = insert_into(connection.dialect.name, label_leases).values(values)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["set_id", "labeler"], set_={"number": number, "until_s": until_s}
        )
    )


def add(
    connection: Connection,
    set_id: str,
    labeler: str,
    number: int,
    *,
    choice: Choice,
    shown_left: Completion,
    taken_s: float,
    now_s: float,
) -> Row:
    """The person has nothing before them afterwards."""
    values = {
        "set_id": set_id,
        "number": number,
        "labeler": labeler,
        "choice": choice,
        "shown_left": shown_left,
        "taken_s": taken_s,
        "time_s": now_s,
    }
    label_id = connection.execute(insert(labels).values(values).returning(labels.c.label_id)).scalar_one()
    connection.execute(delete(label_leases).where(label_leases.c.set_id == set_id, label_leases.c.labeler == labeler))
    if choice != "skip":
        _count(connection, set_id, number, +1)
    return connection.execute(select(labels).where(labels.c.label_id == label_id)).one()


def of_pair(connection: Connection, set_id: str, labeler: str, pair_id: str) -> Row | None:
    """What this person says of it, where they say something."""
    at = and_(labels.c.set_id == label_pairs.c.set_id, labels.c.number == label_pairs.c.number)
    query = (
        select(labels)
        .join(label_pairs, at)
        .where(
            labels.c.set_id == set_id,
            labels.c.labeler == labeler,
            label_pairs.c.pair_id == pair_id,
            labels.c.undone_s.is_(None),
        )
    )
    return connection.execute(query).one_or_none()


def undo_last(connection: Connection, set_id: str, labeler: str, *, now_s: float, lease_s: float) -> Row | None:
    """This person's last label does not count any more, and its pair is before them again. None where there is none."""
    query = select(labels).where(labels.c.set_id == set_id, labels.c.labeler == labeler, labels.c.undone_s.is_(None))
    row = connection.execute(query.order_by(labels.c.label_id.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    connection.execute(update(labels).where(labels.c.label_id == row.label_id).values(undone_s=now_s))
    if row.choice != "skip":
        _count(connection, set_id, row.number, -1)
    lease(connection, set_id, labeler, row.number, until_s=now_s + lease_s)
    return row


def _count(connection: Connection, set_id: str, number: int, change: int) -> None:
    connection.execute(
        update(label_pairs)
        .where(label_pairs.c.set_id == set_id, label_pairs.c.number == number)
        .values(num_labels=label_pairs.c.num_labels + change)
    )


def pair_id_of(connection: Connection, set_id: str, number: int) -> str:
    query = select(label_pairs.c.pair_id).where(label_pairs.c.set_id == set_id, label_pairs.c.number == number)
    return connection.execute(query).scalar_one()


def num_of(connection: Connection, set_id: str, labeler: str) -> int:
    """Labels of this person, skips included."""
    query = select(func.count()).where(
        labels.c.set_id == set_id, labels.c.labeler == labeler, labels.c.undone_s.is_(None)
    )
    return connection.execute(query).scalar_one()


def num_open_to(connection: Connection, label_set: Row, labeler: str, *, now_s: float) -> tuple[int, int]:
    """Pairs that this person may still judge, and those among them whose last slots others have now."""
    is_open = _open_to(label_set, labeler)
    num = connection.execute(select(func.count(label_pairs.c.number)).where(*is_open)).scalar_one()
    taken = _taken(connection, label_set.set_id, labeler, now_s=now_s)
    query = select(label_pairs.c.number, label_pairs.c.num_labels).where(*is_open, label_pairs.c.number.in_(taken))
    rows = connection.execute(query).all()
    return num, sum(row.num_labels + taken[row.number] >= label_set.overlap for row in rows)


def of_set(connection: Connection, set_id: str) -> Sequence[Row]:
    """All of them, oldest first, undone ones too."""
    return connection.execute(select(labels).where(labels.c.set_id == set_id).order_by(labels.c.label_id)).all()


def of_pairs(connection: Connection, set_id: str, first: int, last: int) -> Sequence[Row]:
    """Labels that count, of the pairs with numbers from `first` to `last`, oldest first."""
    query = select(labels).where(
        labels.c.set_id == set_id, labels.c.number.between(first, last), labels.c.undone_s.is_(None)
    )
    return connection.execute(query.where(labels.c.choice != "skip").order_by(labels.c.label_id)).all()
