"""What people are told while the database takes no writes, and what they are told of a change that was made."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import event, text

from .answers import BODY, JOBS, refusal


@pytest.fixture
def impatient(db):
    """A database that does not wait long for another writer."""
    event.listen(db.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 50"))
    db.engine.dispose()
    return db


def test_a_change_that_cannot_be_made_now_is_answered_so_that_a_client_asks_again(api, impatient):
    with closing(sqlite3.connect(impatient.engine.url.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = api.post(JOBS, json=BODY)
    assert "nothing was changed: try again" in refusal(answer, 503, "database_unavailable")
    assert answer.headers["retry-after"] == "2"
    assert api.post(JOBS, json=BODY).status_code == 201


def test_a_change_that_was_made_is_told_as_made_and_logged_where_the_audit_cannot_take_it(api, db, caplog):
    with db.writing() as connection:
        connection.execute(text("ALTER TABLE audit RENAME TO away"))
    answer = api.post(JOBS, json=BODY)
    assert answer.status_code == 201
    assert [each["job_id"] for each in api.get(JOBS).json()["items"]] == [answer.json()["job_id"]]
    assert f"submit POST {JOBS} 201" in caplog.text
