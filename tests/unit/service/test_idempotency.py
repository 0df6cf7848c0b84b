"""Two threads that do the same under one key at once: done once, on either database, and both get the answer."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from starlette.requests import Request

from rlhf_cluster.service.auth import Caller
from rlhf_cluster.service.idempotency import Done, once
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.store import tokens
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tables import tokens as tokens_table
from rlhf_cluster.wire.access import OpenSession, Version

CALLER = Caller(token_id="tok_1", name="ada", scopes=("submit",))


class Holds:
    """What `request.app.state.service` is asked for."""

    def __init__(self, db):
        self.state = self
        self.service = self
        self.db = db


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request, tmp_path):
    is_postgresql = request.param == "postgresql"
    url = request.getfixturevalue("new_postgresql")() if is_postgresql else f"sqlite:///{tmp_path}/service.db"
    database = Database(url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def ask(db):
    request = Request({"type": "http", "method": "POST", "path": "/x", "headers": [], "app": Holds(db)})

    def send(work, key="k", body=None):
        return once(request, CALLER, key, body or OpenSession(token="t"), work=work)

    return send


def make(name="made"):
    def work(connection):
        tokens.add(connection, name=name, scopes=["read"], now_s=time.time())
        return Done(message=Version(version=name), status=201, headers={"Location": "/made"})

    return work


def num_made(db):
    with db.reading() as connection:
        return connection.execute(select(func.count()).select_from(tokens_table)).scalar_one()


def test_many_at_once_are_done_once_and_all_get_the_answer(db, ask):
    at_once = threading.Barrier(4)

    def send(_):
        at_once.wait(30)
        return ask(make())

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, range(4)))
    assert num_made(db) == 1
    assert {(each.status_code, bytes(each.body), each.headers["location"]) for each in answers} == {
        (201, answers[0].body, "/made")
    }
    assert sorted("idempotency-replayed" in each.headers for each in answers) == [False, True, True, True]


def test_what_fails_leaves_neither_a_deed_nor_its_key(db, ask):
    def fails(connection):
        make()(connection)
        raise ApiProblem(409, "refused", "not now")

    with pytest.raises(ApiProblem):
        ask(fails)
    assert num_made(db) == 0
    assert ask(make()).status_code == 201


def test_a_key_is_of_one_request_and_without_one_all_are_done(db, ask):
    ask(make())
    with pytest.raises(ApiProblem, match="choose a new key"):
        ask(make(), body=OpenSession(token="other"))
    for _ in range(2):
        ask(make(), key=None)
    assert num_made(db) == 3
