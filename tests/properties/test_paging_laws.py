"""Lists by cursor: every row that was there at the first page comes exactly once, whatever the page size, and
whatever is added or removed between two pages."""

from __future__ import annotations

import base64
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_cluster.service.store import commands, cursors, events, jobs, samples
from rlhf_cluster.service.store.database import Database

LIMITS = st.lists(st.integers(1, 7), min_size=1, max_size=5)
TIMES = st.integers(0, 3).map(float)
"""Few, so that many rows have the same one."""
REWARDS = st.none() | st.sampled_from([-1e300, -1.0, 0.0, 0.1, 0.1 + 0.2, 1e300])


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('paging')}/service.db")
    database.migrate()
    yield database
    database.close()


def _job(connection: Any, *, owner: str = "ada", now_s: float = 1.0) -> str:
    about = {"name": "a", "labels": {}, "notes": "", "source": "", "config": {}, "bundle_sha256": None}
    return jobs.add(connection, **about, num_steps=1, max_attempts=1, owner=owner, now_s=now_s).job_id


def _pages(limits: list[int], ask: Callable[..., Any], between: Callable[[int], None]) -> list[Any]:
    rows: list[Any] = []
    cursor, number = None, 0
    while True:
        limit = limits[number % len(limits)]
        page, cursor = ask(limit=limit, cursor=cursor)
        rows += page
        if cursor is None:
            return rows
        assert len(page) == limit
        between(number)
        number += 1


@given(old=st.lists(TIMES, max_size=12), new=st.lists(TIMES, max_size=12), limits=LIMITS)
def test_jobs_of_the_first_page_come_once_while_others_are_submitted(db: Database, old, new, limits):
    with db.writing() as connection:
        owner = _job(connection)  # a name that no other example has
        ids = [_job(connection, owner=owner, now_s=now_s) for now_s in old]
        more = iter(new)
        rows = _pages(
            limits,
            lambda **page: jobs.page(connection, owner=owner, **page),
            lambda _: [_job(connection, owner=owner, now_s=now_s) for now_s in [next(more, None)] if now_s is not None],
        )
    listed = [row.job_id for row in rows]
    assert len(set(listed)) == len(listed)
    assert sorted(set(listed) & set(ids)) == sorted(ids)
    assert [row.created_s for row in rows] == sorted((row.created_s for row in rows), reverse=True)


@given(old=st.lists(TIMES, max_size=12), new=st.lists(TIMES, max_size=12), limits=LIMITS)
def test_commands_come_once_while_others_are_given(db: Database, old, new, limits):
    def command(now_s: float) -> str:
        return commands.add(connection, job_id, {}, created_by="ada", now_s=now_s).command_id

    with db.writing() as connection:
        job_id = _job(connection)
        ids = [command(now_s) for now_s in old]
        rows = _pages(
            limits,
            lambda **page: commands.of_job(connection, job_id, **page),
            lambda number: [command(now_s) for now_s in new[number : number + 1]],
        )
    listed = [row.command_id for row in rows]
    assert len(set(listed)) == len(listed)
    assert sorted(set(listed) & set(ids)) == sorted(ids)


@given(num_old=st.integers(0, 15), num_new=st.integers(0, 3), limits=LIMITS)
def test_the_timeline_is_the_one_of_its_first_page(db: Database, num_old, num_new, limits):
    def event() -> int:
        return events.add(connection, topic="jobs", job_id=job_id, time_s=1.0, step=0, kind="Phase", body={})

    with db.writing() as connection:
        job_id = _job(connection)
        ids = [event() for _ in range(num_old)]
        rows = _pages(
            limits,
            lambda **page: events.page(connection, job_id=job_id, **page),
            lambda _: [event() for _ in range(num_new)],
        )
    assert [row.event_id for row in rows] == ids[::-1]


@settings(max_examples=150)
@given(
    old=st.lists(REWARDS, max_size=20),
    new=st.lists(REWARDS, max_size=6),
    limits=LIMITS,
    sort=st.sampled_from(["newest", "reward", "-reward"]),
)
def test_samples_come_once_in_every_order_while_files_arrive(db: Database, old, new, limits, sort):
    def take(step: int, rewards: list[float | None]) -> None:
        texts = {"prompt_id": "p", "prompt": "", "completion": "", "length": 0}
        rows = [{"step": step, "reward": reward, **texts} for reward in rewards]
        samples.add_file(connection, job_id, f"step-{step:06d}.parquet", rows, keep=1000)

    with db.writing() as connection:
        job_id = _job(connection)
        take(10, old[::2])
        take(20, old[1::2])
        ids = {row.sample_id for row in samples.page(connection, job_id, limit=1000)[0]}
        rows = _pages(
            limits,
            lambda **page: samples.page(connection, job_id, sort=sort, **page),
            # Files of steps between those that are there; few, for new rows may lie ahead of the cursor.
            lambda number: take(11 + number, new) if number < 3 else None,
        )
    listed = [row.sample_id for row in rows]
    assert len(ids) == len(old)
    assert len(set(listed)) == len(listed)
    assert ids <= set(listed)
    if sort != "newest":
        rewards = [row.reward for row in rows if row.reward is not None]
        assert rewards == sorted(rewards, reverse=sort == "-reward")
        assert all(row.reward is None for row in rows[len(rewards) :])


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(-1e300, 1e300) | st.text(), min_size=1, max_size=4))
def test_a_cursor_brings_back_what_it_was_made_of(keys):
    assert cursors.decode(cursors.encode(*keys), *map(type, keys)) == keys


@given(st.binary(max_size=40) | st.text(alphabet='[],.-0123456789eEinfINFnul"', max_size=20).map(str.encode))
def test_any_text_is_a_cursor_of_the_right_kinds_or_refused(packed):
    with contextlib.suppress(ValueError):
        reward, sample_id = cursors.decode(base64.urlsafe_b64encode(packed).decode(), float, int)
        assert reward is None or math.isfinite(reward)
        assert isinstance(sample_id, int)
