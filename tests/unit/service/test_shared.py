"""What many ask for at once is found out once, and never told when it is no longer so."""

from __future__ import annotations

import asyncio
import functools

import pytest

from rlhf_cluster.service.shared import MAX_FINDINGS, Shared
from rlhf_cluster.service.store import tokens
from rlhf_cluster.service.store.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    is_postgresql = request.param == "postgresql"
    return request.getfixturevalue("new_postgresql")() if is_postgresql else f"sqlite:///{tmp_path}/service.db"


@pytest.fixture
def db(url):
    database = Database(url)
    database.migrate()
    yield database
    database.close()


class Look:
    """Counts how often it is asked, and tells how many tokens there are."""

    def __init__(self, db):
        self.num = 0
        self._db = db

    async def __call__(self):
        self.num += 1
        await asyncio.sleep(0.01)
        with self._db.reading() as connection:
            return len(tokens.every(connection))


def change(db):
    with db.writing() as connection:
        tokens.add(connection, name="a", scopes=["read"], now_s=1.0)


def test_many_at_once_and_later_ones_have_it_from_the_first(db):
    look, shared = Look(db), Shared(db)

    async def ask():
        return [*await asyncio.gather(*(shared.get("a", look) for _ in range(50))), await shared.get("a", look)]

    assert asyncio.run(ask()) == [0] * 51
    assert look.num == 1


def test_a_change_by_whomever_is_seen_by_the_next_who_asks(db, url):
    look, shared, elsewhere = Look(db), Shared(db), Database(url)

    async def ask():
        seen = []
        for each in (db, elsewhere, db):
            seen.append(await shared.get("a", look))
            change(each)
        return [*seen, await shared.get("a", look)]

    assert asyncio.run(ask()) == [0, 1, 2, 3]
    elsewhere.close()


def test_a_change_while_it_is_looked_up_is_seen_by_those_who_ask_after_it(db):
    shared, is_looking, goes_on = Shared(db), asyncio.Event(), asyncio.Event()

    async def slow():
        is_looking.set()
        await goes_on.wait()
        return "of before"

    async def ask():
        first = asyncio.ensure_future(shared.get("a", slow))
        await is_looking.wait()
        change(db)
        second = await shared.get("a", Look(db))
        goes_on.set()
        return await first, second, await shared.get("a", Look(db))

    assert asyncio.run(ask()) == ("of before", 1, 1)


def test_what_fails_is_told_to_all_who_waited_and_tried_again_by_the_next(db):
    shared = Shared(db)

    async def fail():
        await asyncio.sleep(0.01)
        raise LookupError("no")

    async def ask():
        failed = await asyncio.gather(*(shared.get("a", fail) for _ in range(3)), return_exceptions=True)
        await asyncio.sleep(0)
        return [type(each) for each in failed], await shared.get("a", Look(db))

    assert asyncio.run(ask()) == ([LookupError] * 3, 0)


def test_whoever_goes_away_takes_nothing_from_the_others(db):
    shared = Shared(db)

    async def ask():
        first = asyncio.ensure_future(shared.get("a", Look(db)))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(shared.get("a", Look(db)))
        first.cancel()
        return await second

    assert asyncio.run(ask()) == 0


def test_what_is_kept_is_bounded(db):
    shared, look = Shared(db), Look(db)

    async def ask():
        for key in range(MAX_FINDINGS + 10):
            await shared.get(key, functools.partial(asyncio.sleep, 0))
        return await shared.get("a", look)

    assert asyncio.run(ask()) == 0
    assert len(shared._found) < MAX_FINDINGS
