"""Attempts: who may write, and how one ends."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from rlhf_cluster.service.store import attempts, tokens
from rlhf_cluster.service.store.database import Database


def _add(db: Database, job_id: str, number: int = 1):
    with db.writing() as connection:
        return attempts.add(connection, job_id, number, submission_id=f"{job_id}-{number}", now_s=1.0)


def test_an_attempt_is_known_by_its_secret_which_is_not_stored(db: Database, job_id: str):
    row, secret = _add(db, job_id)
    assert (row.state, row.number, row.may_be_retried, row.lease_until_s) == ("created", 1, True, None)
    assert secret not in str(tuple(row))
    with db.reading() as connection:
        assert tokens.attempt_of_secret(connection, secret).number == 1
        assert tokens.attempt_of_secret(connection, secret + "x") is None


def test_a_new_submission_ends_the_one_before_it(db: Database, job_id: str):
    first, old = _add(db, job_id)
    with db.writing() as connection:
        row, new = attempts.renew_submission(connection, job_id, 1)
        assert row.submission_id.startswith(f"{first.submission_id}-")
        assert tokens.attempt_of_secret(connection, old) is None
        assert tokens.attempt_of_secret(connection, new).job_id == job_id


def test_a_number_is_given_once(db: Database, job_id: str):
    _add(db, job_id)
    with pytest.raises(IntegrityError):
        _add(db, job_id)


def test_attempts_are_in_order_and_the_newest_is_the_current_one(db: Database, job_id: str):
    first, _ = _add(db, job_id)
    with db.reading() as connection:
        assert attempts.is_current(connection, first)
    second, _ = _add(db, job_id, 2)
    with db.reading() as connection:
        assert [row.number for row in attempts.of_job(connection, job_id)] == [1, 2]
        assert attempts.newest(connection, job_id).number == 2
        assert attempts.newest(connection, "job_none") is None
        assert not attempts.is_current(connection, first)
        assert attempts.is_current(connection, second)


def test_a_driver_registers_and_renews_its_lease(db: Database, job_id: str):
    _add(db, job_id)
    with db.writing() as connection:
        assert attempts.submitted(connection, job_id, 1, now_s=2.0)
        assert attempts.newest(connection, job_id).state == "submitted"
        attempts.register(connection, job_id, 1, host="node-7", process_id=42, lease_until_s=50.0)
        attempts.renew(connection, job_id, 1, lease_until_s=60.0)
        row = attempts.newest(connection, job_id)
    assert (row.state, row.host, row.process_id, row.lease_until_s) == ("running", "node-7", 42, 60.0)


def test_a_lost_attempt_stays_lost_whatever_its_driver_still_says(db: Database, job_id: str):
    row, _ = _add(db, job_id)
    with db.writing() as connection:
        attempts.lose(connection, job_id, 1, message="its lease ran out", now_s=9.0)
        attempts.register(connection, job_id, 1, host="h", process_id=1, lease_until_s=99.0)
        attempts.renew(connection, job_id, 1, lease_until_s=99.0)
        attempts.end(
            connection, job_id, 1, outcome="succeeded", exit_code=0, message="done", may_be_retried=True, now_s=10.0
        )
        after = attempts.newest(connection, job_id)
        assert not attempts.is_current(connection, row)
    assert (after.state, after.message, after.ended_s, after.outcome) == ("lost", "its lease ran out", 9.0, None)


def test_the_first_report_of_an_end_counts(db: Database, job_id: str):
    row, _ = _add(db, job_id)
    with db.writing() as connection:
        for outcome, retried in (("failed", False), ("succeeded", True)):
            attempts.end(
                connection,
                job_id,
                1,
                outcome=outcome,
                exit_code=1,
                message=outcome,
                may_be_retried=retried,
                now_s=5.0,
            )
        attempts.lose(connection, job_id, 1, message="late", now_s=6.0)
        after = attempts.newest(connection, job_id)
        assert not attempts.is_current(connection, row)
    assert (after.state, after.outcome, after.exit_code, after.message, after.may_be_retried, after.ended_s) == (
        "ended",
        "failed",
        1,
        "failed",
        False,
        5.0,
    )
