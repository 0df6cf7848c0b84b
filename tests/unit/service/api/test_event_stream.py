"""The hub and its listeners, fast and slow ones, with a list that is too short for the slow ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
from sqlalchemy import text

from rlhf_cluster.service.event_stream import Wanted, stream
from rlhf_cluster.service.hub import LOGS, MAX_SPREAD_S, Hub, TooManyStreams, look
from rlhf_cluster.service.store import events, jobs, logs
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.wire.relay import LogLine

from .live import LAST, TOPICS, Message, new_job, parsed, tell, tell_much

BOUND_S = 60.0


@pytest.fixture
def db(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path}/service.db")
    database.migrate()
    yield database
    database.close()


async def listen(hub: Hub, db: Database, wanted: Wanted, after: int | None, **options) -> AsyncGenerator[Message]:
    options = {"may_stay": lambda: True, "keep_alive_s": BOUND_S, **options}
    hub.enter("somebody")
    try:
        async for chunk in stream(hub, db, wanted, after=after, **options):
            for block in chunk.split(b"\n\n")[:-1]:
                yield parsed(block)
    finally:
        hub.leave("somebody")


async def ids_until_last(
    hub: Hub, db: Database, wanted: Wanted, after: int, *, delay_s: float, begin_s: float
) -> list[int]:
    seen = []
    await asyncio.sleep(begin_s)
    async with aclosing(listen(hub, db, wanted, after)) as heard:
        async for message in heard:
            if message.data is not None:
                seen.append(int(message.id))
                if message.data["kind"] == LAST:
                    break
                await asyncio.sleep(delay_s)
    return seen


@pytest.mark.parametrize("seed", range(5))
def test_listeners_of_all_speeds_see_each_event_once_whatever_the_list_holds(db, seed):
    chance = random.Random(seed)
    job_ids = [new_job(db, name) for name in ("one", "two")]
    before = tell(db, job_ids[0])[-1]
    choices = [Wanted(topics=frozenset({topic}), job_id=job_id) for topic in TOPICS[:3] for job_id in job_ids]

    async def play() -> tuple[list[tuple[int, str, str]], list[list[int]]]:
        hub = Hub(db, max_streams=100, poll_s=0.01, keep=chance.choice((1, 5, 1000)))
        running = asyncio.create_task(hub.run())
        listeners = [
            ids_until_last(
                hub, db, wanted, before, delay_s=chance.choice((0, 0, 0.002)), begin_s=chance.choice((0, 0.1, 0.5))
            )
            for wanted in choices
        ]
        writing = asyncio.to_thread(tell_much, db, job_ids, num=150, chance=random.Random(seed))
        told, *seen = await asyncio.wait_for(asyncio.gather(writing, *listeners), BOUND_S)
        hub.close()
        await asyncio.wait_for(running, BOUND_S)
        return told, seen

    told, seen = asyncio.run(play())
    for wanted, ids in zip(choices, seen, strict=True):
        assert ids == [each for each, topic, job_id in told if wanted.has(topic, job_id)]


def test_a_stream_gives_signs_of_life_and_ends_when_its_token_is_not_good_any_more(db):
    job_id, answers = new_job(db), iter((True, True, False))
    place = tell(db, job_id)[-1]

    async def play() -> list[Message]:
        hub = Hub(db, max_streams=1, poll_s=0.01)
        heard = listen(hub, db, Wanted(), place, keep_alive_s=0.02, may_stay=lambda: next(answers))
        return [message async for message in heard]

    opening, *alive = asyncio.run(asyncio.wait_for(play(), BOUND_S))
    assert opening.retry
    assert [(message.comment, message.id) for message in alive] == [("keep-alive", str(place))] * 2


def test_nobody_is_kept_waiting_by_a_hub_that_closes(db):
    async def play() -> None:
        hub = Hub(db, max_streams=1, poll_s=0.01)
        running = asyncio.create_task(hub.run())
        heard = listen(hub, db, Wanted(), None)
        await anext(heard)
        hub.close()
        assert [message async for message in heard] == []
        await running

    asyncio.run(asyncio.wait_for(play(), BOUND_S))


def test_who_left_makes_room_for_another_stream_of_the_same_token(db):
    hub = Hub(db, max_streams=1)
    hub.enter("ada")
    hub.enter("bo")
    with pytest.raises(TooManyStreams):
        hub.enter("ada")
    hub.leave("ada")
    hub.enter("ada")
    assert hub.num_listeners == 2


def test_a_database_that_cannot_be_read_for_a_while_ends_no_hub(db):
    job_id = new_job(db)

    async def play() -> int:
        hub = Hub(db, max_streams=9, poll_s=0.01)
        running = asyncio.create_task(hub.run())
        heard = listen(hub, db, Wanted(), None)
        await anext(heard)
        with db.writing() as connection:
            connection.execute(text("ALTER TABLE logs RENAME TO away"))
        await asyncio.sleep(0.1)
        with db.writing() as connection:
            connection.execute(text("ALTER TABLE away RENAME TO logs"))
        [event_id] = tell(db, job_id)
        message = await anext(heard)
        assert not running.done()
        hub.close()
        await running
        assert message.id == str(event_id)
        return event_id

    assert asyncio.run(asyncio.wait_for(play(), BOUND_S)) > 0


def test_a_hub_that_nobody_listens_to_reads_nothing(db):
    async def play() -> None:
        hub = Hub(db, max_streams=9, poll_s=0.01)
        running = asyncio.create_task(hub.run())
        await asyncio.sleep(0.05)
        assert hub.after(0) is None
        hub.close()
        await running

    asyncio.run(asyncio.wait_for(play(), BOUND_S))


def test_one_listener_goes_on_at_once_and_a_crowd_spreads_out_for_a_bounded_time(db):
    hub = Hub(db, max_streams=1000)
    hub.enter("ada")
    assert hub.spread_s == 0
    for _ in range(500):
        hub.enter("bo")
    assert hub.spread_s == MAX_SPREAD_S


def test_lines_are_told_also_after_a_removed_job_took_the_newest_ones_with_it(db):
    """SQLite gives their numbers again."""
    job_id, removed = new_job(db), new_job(db)

    def write(whose: str, first: int, num: int) -> None:
        lines = [LogLine(component="driver", offset=first + each, line="x", time_s=1.0) for each in range(num)]
        with db.writing() as connection:
            logs.add(connection, whose, lines)

    write(job_id, 0, 1)
    write(removed, 0, 50)
    seen, _, _ = look(db, None)
    with db.writing() as connection:
        jobs.delete(connection, removed)
    write(job_id, 1, 1)
    seen, _, marks = look(db, seen)
    assert marks == {(LOGS, job_id)}
    assert look(db, seen)[2] == set()
    write(job_id, 2, 1)
    assert look(db, seen)[2] == {(LOGS, job_id)}


@pytest.mark.parametrize("levels", [300, 500])  # more than an answer takes, more than a walk through it does
def test_what_one_job_nests_too_deep_for_an_answer_ends_nobodys_stream(db, levels):
    one, other, body = new_job(db), new_job(db), {"a": 1}
    for _ in range(levels):
        body = {"a": body}

    async def play() -> tuple[Message, Message]:
        hub = Hub(db, max_streams=9, poll_s=0.01)
        running = asyncio.create_task(hub.run())
        heard = listen(hub, db, Wanted(topics=frozenset({"jobs"})), None)
        await anext(heard)
        with db.writing() as connection:
            events.add(connection, topic="jobs", job_id=one, time_s=1.0, step=0, kind="Notice", body=body)
        first = await anext(heard)
        tell(db, other)
        second = await anext(heard)
        hub.close()
        await running
        return first, second

    told = asyncio.run(asyncio.wait_for(play(), BOUND_S))
    assert [message.data["job_id"] for message in told] == [one, other]
