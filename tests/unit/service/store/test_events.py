"""Events: numbered upwards, read from a number on, listed for people, trimmed."""

from __future__ import annotations

import pytest

from rlhf_cluster.service.store import events
from rlhf_cluster.service.store.database import Database


def _add(db: Database, job_id: str, **fields) -> int:
    event = {"topic": "jobs", "time_s": 1.0, "step": 0, "kind": "Phase", "body": {}}
    with db.writing() as connection:
        return events.add(connection, **{**event, "job_id": job_id, **fields})


def test_ids_rise_also_when_all_before_are_trimmed(db: Database, job_id: str):
    ids = [_add(db, job_id) for _ in range(3)]
    with db.writing() as connection:
        assert events.trim(connection, keep=0, limit=9) == 3
        assert events.newest_id(connection) == events.oldest_id(connection) == 0
    assert _add(db, job_id) > ids[2] > ids[1] > ids[0] > 0


def test_an_event_that_was_rolled_back_is_never_seen(db: Database, job_id: str):
    def fail() -> None:
        with db.writing() as connection:
            events.add(connection, topic="jobs", job_id=job_id, time_s=1.0, step=0, kind="Phase", body={})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    kept = _add(db, job_id)
    with db.reading() as connection:
        assert [row.event_id for row in events.after(connection, 0)] == [kept]


def test_a_reader_goes_on_after_what_it_has_seen(db: Database, submit):
    job_id, other = submit(), submit()
    ids = [_add(db, each, topic=topic) for each in (job_id, other) for topic in ("jobs", "metrics", "logs")]

    def after(event_id: int, **filters) -> list[int]:
        with db.reading() as connection:
            return [row.event_id for row in events.after(connection, event_id, **filters)]

    assert after(0) == ids
    assert after(ids[3]) == ids[4:]
    assert after(ids[5]) == []
    assert after(0, limit=2) == ids[:2]
    assert after(ids[0], job_id=job_id) == ids[1:3]
    assert after(0, topics=["jobs", "logs"]) == [ids[0], ids[2], ids[3], ids[5]]
    assert after(0, topics=[]) == []
    assert after(ids[1], job_id=job_id, topics=["logs"]) == [ids[2]]


def test_the_timeline_is_newest_first_and_filtered(db: Database, submit):
    job_id = submit()
    _add(db, submit())
    levels = ("info", "warning", "error", "info")
    kinds = ("Phase", "Notice", "JobEnded", "JobStarted")
    ids = [_add(db, job_id, level=level, kind=kind) for level, kind in zip(levels, kinds, strict=True)]

    def listed(**filters) -> list[int]:
        with db.reading() as connection:
            return [row.event_id for row in events.page(connection, job_id=job_id, limit=9, **filters)[0]]

    assert listed() == ids[::-1]
    assert listed(level="info") == ids[::-1]
    assert listed(level="warning") == [ids[2], ids[1]]
    assert listed(level="error") == [ids[2]]
    assert listed(level="no-level") == []
    assert listed(kinds=["Phase", "JobStarted"]) == [ids[3], ids[0]]
    assert listed(kinds=["Notice"], level="error") == []


def test_the_timeline_goes_on_at_its_cursor(db: Database, job_id: str):
    ids = [_add(db, job_id) for _ in range(5)]
    with db.reading() as connection:
        rows, cursor = events.page(connection, job_id=job_id, limit=3)
        assert [row.event_id for row in rows] == ids[:1:-1]
    _add(db, job_id)
    with db.reading() as connection:
        rows, cursor = events.page(connection, job_id=job_id, limit=3, cursor=cursor)
        assert [row.event_id for row in rows] == ids[1::-1]
        assert cursor is None
        with pytest.raises(ValueError, match="next_cursor"):
            events.page(connection, job_id=job_id, limit=3, cursor="no")


def test_trimming_keeps_the_newest(db: Database, job_id: str):
    ids = [_add(db, job_id) for _ in range(6)]
    with db.writing() as connection:
        assert events.trim(connection, keep=6, limit=9) == events.trim(connection, keep=100, limit=9) == 0
        assert [events.trim(connection, keep=2, limit=3) for _ in range(3)] == [3, 1, 0]
        assert (events.oldest_id(connection), events.newest_id(connection)) == (ids[4], ids[5])


def test_all_of_an_event_comes_back(db: Database, job_id: str):
    fields = {"topic": "workers", "time_s": 3.5, "step": 7, "kind": "WorkerChanged", "level": "warning"}
    event_id = _add(db, job_id, **fields, text="rollout-3 is lost", body={"worker_id": "rollout-3"})
    with db.reading() as connection:
        row = events.after(connection, event_id - 1)[0]
    assert {name: getattr(row, name) for name in fields} == fields
    assert (row.text, row.body) == ("rollout-3 is lost", {"worker_id": "rollout-3"})
