"""Checkpoints, uploads and the audit."""

from __future__ import annotations

from sqlalchemy import insert

from rlhf_cluster.service.store import audit, checkpoints, uploads
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tables import audit as audit_table


def test_checkpoints_are_newest_first_and_one_a_step(db: Database, job_id: str):
    with db.writing() as connection:
        for step, path in ((2, "a"), (4, "b"), (2, "again")):
            checkpoints.add(connection, job_id, step=step, path=path, time_s=float(step))
        rows = checkpoints.of_job(connection, job_id)
    assert [(row.step, row.path) for row in rows] == [(4, "b"), (2, "again")]


def test_the_same_content_is_one_upload_of_whoever_came_first(db: Database):
    sha256 = "a" * 64
    with db.writing() as connection:
        assert uploads.get(connection, sha256) is None
        first = uploads.add(connection, sha256, num_bytes=2**40, created_by="ada", now_s=1.0)
        again = uploads.add(connection, sha256, num_bytes=2**40, created_by="bob", now_s=2.0)
        assert first == again == uploads.get(connection, sha256)
    assert (again.created_by, again.num_bytes) == ("ada", 2**40)


def test_the_audit_is_newest_first_page_by_page(db: Database):
    row = {"time_s": 1.0, "who": "ada", "method": "POST", "path": "/x", "status": 201, "is_ok": True}
    with db.writing() as connection:
        connection.execute(insert(audit_table), [{**row, "request_id": f"req_{number}"} for number in range(5)])
        first, cursor = audit.page(connection, limit=3)
        connection.execute(insert(audit_table), [{**row, "request_id": "later"}])
        rest, end = audit.page(connection, limit=3, cursor=cursor)
    assert [entry.request_id for entry in (*first, *rest)] == [f"req_{number}" for number in (4, 3, 2, 1, 0)]
    assert end is None
