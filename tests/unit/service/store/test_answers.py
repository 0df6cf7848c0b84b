"""Answers to repeated requests: the same to the same, none to another under the same key."""

from __future__ import annotations

import pytest

from rlhf_cluster.service.store import answers
from rlhf_cluster.service.store.answers import Fresh, InFlight, Mismatch, Saved
from rlhf_cluster.service.store.database import Database


def _begin(db: Database, key: str = "k", *, token_id: str = "tok_1", request: str = "a", now_s: float = 1.0):
    with db.writing() as connection:
        return answers.begin(connection, token_id=token_id, key=key, request_sha256=request, now_s=now_s)


def _finish(db: Database) -> None:
    with db.writing() as connection:
        answers.finish(connection, token_id="tok_1", key="k", status=201, headers={"Location": "/x"}, body='{"a": 1}')


def test_the_first_request_is_done_and_those_after_it_get_its_answer(db: Database):
    assert _begin(db) == Fresh()
    assert _begin(db) == InFlight()
    _finish(db)
    assert _begin(db) == _begin(db) == Saved(201, {"Location": "/x"}, '{"a": 1}')


def test_another_request_under_the_same_key_is_told_at_any_time(db: Database):
    _begin(db)
    assert _begin(db, request="b") == Mismatch()
    _finish(db)
    assert _begin(db, request="b") == Mismatch()


def test_keys_of_different_tokens_have_nothing_to_do_with_each_other(db: Database):
    _begin(db)
    assert _begin(db, token_id="tok_2", request="b") == Fresh()
    assert _begin(db, "another", request="b") == Fresh()


def test_a_request_that_failed_can_be_done_under_its_key(db: Database):
    def fail() -> None:
        with db.writing() as connection:
            answers.begin(connection, token_id="tok_1", key="k", request_sha256="a", now_s=1.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert _begin(db) == Fresh()


def test_old_answers_are_removed(db: Database):
    _begin(db, "old", now_s=1.0)
    _begin(db, "new", now_s=9.0)
    with db.writing() as connection:
        assert answers.trim(connection, before_s=9.0, limit=5) == 1
    assert _begin(db, "new") == InFlight()
    assert _begin(db, "old") == Fresh()
