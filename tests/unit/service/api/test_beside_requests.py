"""What runs beside the requests of a real service, and its end while some are under way."""

from __future__ import annotations

import threading
import time

import httpx
from sqlalchemy import text

from rlhf_cluster.service.store import attempts, events

from .live import BOUND_S, STREAM, messages, new_job, served, tell


def until(condition):
    deadline_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_old_events_are_removed_while_it_serves(tmp_path):
    with served(tmp_path, keep_events=5, tidy_every_s=0.05) as live:
        ids = tell(live.db, new_job(live.db), num=40)

        def kept():
            with live.db.reading() as connection:
                return [row.event_id for row in events.after(connection, 0)]

        until(lambda: kept() == ids[-5:])


def test_its_end_answers_those_who_wait_for_commands_and_ends_streams_at_once(tmp_path):
    """Whoever is cut off instead sees no answer but a broken connection, after the whole time of grace."""
    with served(tmp_path) as live:
        job_id = new_job(live.db)
        with live.db.writing() as connection:
            _, secret = attempts.add(connection, job_id, 1, submission_id="s", now_s=time.time())
        answers: list[httpx.Response] = []

        def wait_for_commands():
            with live.client(Authorization=f"Bearer {secret}") as client:
                answers.append(client.get("/api/v1/relay/commands", params={"wait": 60}))

        waiting = threading.Thread(target=wait_for_commands)
        waiting.start()
        with live.client() as client, client.stream("GET", STREAM) as stream:
            told = messages(stream)
            assert next(told).retry
            until(lambda: len(live.server.server_state.tasks) == 2)  # both requests are under way
            live.server.should_exit = True
            assert list(told) == []  # it ends, and is not broken off
        waiting.join(BOUND_S)
        assert [(each.status_code, each.json()) for each in answers] == [(200, {"commands": [], "kill": False})]


def test_what_runs_beside_the_requests_does_not_end_without_a_word(tmp_path, caplog):
    with served(tmp_path) as live, live.client() as client, client.stream("GET", STREAM) as stream:
        told = messages(stream)
        assert next(told).retry
        job_id = new_job(live.db)
        with live.db.writing() as connection:
            events.add(connection, topic="jobs", job_id=job_id, time_s=1.0, step=0, kind="a", body={})
            connection.execute(text("UPDATE events SET body = '3'"))  # as a damaged disk may leave it
        until(lambda: "hub has ended" in caplog.text)
        live.server.should_exit = True
