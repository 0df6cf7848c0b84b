"""A job's timeline, and the stream of all events: resumed, shared by many, ended, and told what it missed."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from itertools import islice

import httpx
import pytest

from rlhf_cluster.service.store import events, jobs, logs, tokens
from rlhf_cluster.wire.relay import LogLine

from .answers import JOBS, refusal
from .live import (
    BOUND_S,
    LAST,
    STREAM,
    TOPICS,
    Live,
    messages,
    messages_of,
    new_job,
    served,
    tell,
    tell_much,
)


@pytest.fixture
def live(tmp_path):
    with served(tmp_path / "data") as running:
        yield running


def read_until_last(live: Live, after: int, *, chance: random.Random, **params: str) -> list[int]:
    """Everything after that event, over connections that break off anywhere."""
    seen: list[int] = []
    with live.client() as client:
        while True:
            few = chance.choice((1, 3, 20, 10_000))
            place = str(seen[-1] if seen else after)
            with client.stream("GET", STREAM, params=params, headers={"Last-Event-ID": place}) as response:
                assert response.status_code == 200
                for message in messages(response):
                    if message.data is None:
                        continue
                    assert message.event == message.data["topic"]
                    seen.append(int(message.id))
                    if message.data["kind"] == LAST:
                        return seen
                    few -= 1
                    if not few:
                        break


@pytest.mark.parametrize("seed", range(4))
def test_a_client_that_breaks_off_and_resumes_while_events_are_written_sees_each_once(live, seed):
    chance = random.Random(seed)
    job_ids = [new_job(live.db, name) for name in ("one", "two")]
    before = tell(live.db, job_ids[0])[-1]
    topic, job_id = chance.choice(TOPICS), chance.choice(job_ids)
    told: list[tuple[int, str, str]] = []
    writer = threading.Thread(
        target=lambda: told.extend(tell_much(live.db, job_ids, num=200, chance=random.Random(-seed - 1)))
    )
    writer.start()
    seen = read_until_last(live, before, chance=chance, topics=topic, job_id=job_id)
    writer.join(BOUND_S)
    assert seen == [each for each, of_topic, of_job in told if (of_topic, of_job) == (topic, job_id)]


def test_fifty_streams_at_once_each_see_every_event_once(live):
    job_id = new_job(live.db)
    start = tell(live.db, job_id)[-1]

    async def read(client: httpx.AsyncClient, ready: asyncio.Semaphore) -> list[int]:
        seen: list[int] = []
        async with client.stream("GET", STREAM, params={"after": start, "topics": "jobs"}) as response:
            async for message in messages_of(response):
                if message.retry:
                    ready.release()
                elif message.data is not None:
                    seen.append(int(message.id))
                    if message.data["kind"] == LAST:
                        break
        return seen

    async def all_of_them() -> tuple[list[int], list[list[int]]]:
        limits, ready = httpx.Limits(max_connections=50), asyncio.Semaphore(0)
        async with httpx.AsyncClient(
            base_url=live.url, headers=live.headers, limits=limits, timeout=BOUND_S, trust_env=False
        ) as client:
            readers = [asyncio.create_task(read(client, ready)) for _ in range(50)]
            for _ in readers:
                await ready.acquire()
            told = await asyncio.to_thread(tell_much, live.db, [job_id], num=200, chance=random.Random(1))
            return [each for each, topic, _ in told if topic == "jobs"], await asyncio.gather(*readers)

    told, seen = asyncio.run(all_of_them())
    assert all(each == told for each in seen)


def test_a_stream_without_a_place_begins_now_and_says_where_that_is(live):
    job_id = new_job(live.db)
    before = tell(live.db, job_id, num=3)[-1]
    with live.client() as client, client.stream("GET", STREAM) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        incoming = messages(response)
        first = next(incoming)
        assert (first.id, first.data, first.retry) == (str(before), None, "2000")
        [event_id] = tell(live.db, job_id)
        assert next(incoming).id == str(event_id)


def test_what_a_browser_saw_last_goes_before_the_place_in_its_address(live):
    first, second, third = tell(live.db, new_job(live.db), num=3)
    with (
        live.client() as client,
        client.stream("GET", STREAM, params={"after": first}, headers={"Last-Event-ID": str(second)}) as response,
    ):
        assert [message.id for message in islice(messages(response), 2)] == ["", str(third)]


def test_views_and_log_lines_are_told_without_an_id(live):
    job_id = new_job(live.db)
    with live.client() as client, client.stream("GET", STREAM, params={"job_id": job_id}) as response:
        incoming = messages(response)
        next(incoming)
        told = set()
        deadline_s = time.monotonic() + BOUND_S
        while told != {"view", "logs"} and time.monotonic() < deadline_s:
            with live.db.writing() as connection:
                now_s = time.time()
                jobs.saw(connection, job_id, {"step": 1, "num_steps": 9}, now_s=now_s)
                line = LogLine(component="driver", offset=int(now_s * 1000), line="hello", time_s=now_s)
                logs.add(connection, job_id, [line])
            message = next(incoming)
            assert message.id == ""
            assert message.data == {"job_id": job_id}
            told.add(message.event)
        assert told == {"view", "logs"}


@pytest.mark.parametrize("place", ["removed", "of another database"])
def test_a_client_whose_place_is_not_there_is_told_to_read_everything_anew(live, place):
    job_id = new_job(live.db)
    ids = tell(live.db, job_id, num=20)
    with live.db.writing() as connection:
        events.trim(connection, keep=5, limit=100)
    asked = ids[2] if place == "removed" else ids[-1] + 100
    with live.client() as client, client.stream("GET", STREAM, params={"after": asked}) as response:
        incoming = messages(response)
        assert next(incoming).retry
        message = next(incoming)
        assert (message.event, message.id, message.data) == ("resync", str(ids[-1]), {"newest_id": ids[-1]})
        [event_id] = tell(live.db, job_id)
        assert next(incoming).id == str(event_id)


def test_streams_end_whole_when_the_server_is_told_to_end(live):
    with live.client() as client, client.stream("GET", STREAM) as response:
        incoming = messages(response)
        next(incoming)
        live.server.should_exit = True
        assert list(incoming) == []  # cut off in the middle, this would raise


def test_a_token_has_so_many_streams_and_another_one_when_one_of_them_ends(tmp_path):
    with (
        served(tmp_path / "data", max_streams=2) as live,
        live.client() as client,
        client.stream("GET", STREAM) as first,
    ):
        held = messages(first)  # one that is dropped ends its stream
        next(held)
        with client.stream("GET", STREAM) as second:
            also_held = messages(second)
            next(also_held)
            third = client.get(STREAM)
            assert "2 event streams open" in refusal(third, 503, "too_many_streams")
            assert int(third.headers["retry-after"]) > 0
        deadline_s = time.monotonic() + BOUND_S
        status = 0
        while status != 200 and time.monotonic() < deadline_s:
            with client.stream("GET", STREAM) as again:
                status = again.status_code
        assert status == 200


def test_streams_of_unknown_jobs_topics_and_places_are_refused(live):
    with live.client() as client:
        refusal(client.get(STREAM, params={"job_id": "job_x"}), 404, "not_found")
        refusal(client.get(STREAM, params={"topics": "jobs,weather"}), 422, "invalid_request")
        refusal(client.get(STREAM, params={"after": "-1"}), 422, "invalid_request")
        refusal(client.get(STREAM, headers={"Last-Event-ID": "x"}), 422, "invalid_request")
        refusal(client.get(STREAM, headers={"Authorization": ""}), 401, "unauthenticated")


def test_a_timeline_is_paged_newest_first_and_narrowed_by_kind_and_level(api, submit, db):
    job_id = submit()["job_id"]
    with db.writing() as connection:
        for number in range(5):
            for kind, level in (("StepDone", "info"), ("RewardFailed", "warning")):
                events.add(
                    connection,
                    topic="jobs",
                    job_id=job_id,
                    time_s=1.0,
                    step=number,
                    kind=kind,
                    level=level,
                    body={},
                )
    path = f"{JOBS}/{job_id}/events"
    page = api.get(path, params={"kind": ["StepDone"], "limit": 3}).json()
    assert [item["step"] for item in page["items"]] == [4, 3, 2]
    rest = api.get(path, params={"kind": ["StepDone"], "limit": 3, "cursor": page["next_cursor"]}).json()
    assert [item["step"] for item in rest["items"]] == [1, 0]
    assert rest["next_cursor"] is None
    worse = api.get(path, params={"level": "warning"}).json()["items"]
    assert {item["kind"] for item in worse} == {"RewardFailed"}
    refusal(api.get(path, params={"cursor": "x"}), 422, "invalid_cursor")
    refusal(api.get(f"{JOBS}/job_x/events"), 404, "not_found")


def test_a_stream_ends_soon_after_its_token_was_revoked(tmp_path):
    with (
        served(tmp_path / "data", keep_alive_s=0.05) as live,
        live.client() as client,
        client.stream("GET", STREAM) as response,
    ):
        incoming = messages(response)
        assert next(incoming).retry
        assert next(incoming).comment == "keep-alive"
        with live.db.writing() as connection:
            for row in tokens.every(connection):
                tokens.revoke(connection, row.token_id, now_s=time.time())
        assert {message.comment for message in incoming} <= {"keep-alive"}
