"""The relay's routes: who may ask, what is answered, and what is refused."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rlhf_cluster.service.api.relay import MAX_HELD
from rlhf_cluster.service.store import attempts, commands, samples
from rlhf_cluster.service.store.database import Database

from .conftest import URL

RELAY = "/api/v1/relay"
WHO = {"host": "node-1", "process_id": 7}
NOTHING_NEW = {"first_entry": 0, "entries": []}
ROW = {"step": 1, "prompt_id": "p", "prompt": "a", "completion": "b", "reward": 0.5, "length": 3}


@pytest.fixture
def job(submit: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    return submit()


@pytest.fixture
def next_relay(app: FastAPI, db: Database, job: dict[str, Any]) -> Callable[[], TestClient]:
    """The relay of a new attempt."""

    def begin() -> TestClient:
        with db.writing() as connection:
            number = len(attempts.of_job(connection, job["job_id"])) + 1
            _, secret = attempts.add(connection, job["job_id"], number, submission_id="s", now_s=time.time())
        return TestClient(
            app, base_url=URL, headers={"Authorization": f"Bearer {secret}"}, raise_server_exceptions=False
        )

    return begin


@pytest.fixture
def relay(next_relay: Callable[[], TestClient]) -> TestClient:
    return next_relay()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), content)
    return content.getvalue()


def add_command(db: Database, job: dict[str, Any], **options: Any) -> str:
    with db.writing() as connection:
        body = {"command": "Pause"}
        row = commands.add(connection, job["job_id"], body, created_by="ada", now_s=time.time(), **options)
        return row.command_id


def test_a_relay_is_told_the_whole_job_and_where_to_go_on(relay: TestClient, job, db: Database):
    told = relay.post(f"{RELAY}/register", json=WHO).json()
    assert (told["job_id"], told["attempt"], told["num_entries"], told["sample_files"]) == (job["job_id"], 1, 0, [])
    assert told["job_dir"].endswith(f"/jobs/{job['job_id']}")
    assert told["config"]["train"]["num_steps"] == 3
    with db.reading() as connection:
        row = attempts.newest(connection, job["job_id"])
    assert (row.state, row.host, row.process_id) == ("running", "node-1", 7)
    assert row.lease_until_s > time.time()


@pytest.mark.parametrize("scope", ["read", "submit", "admin"])
def test_a_persons_token_is_no_relays(api_as: Callable[[str], TestClient], scope: str):
    answer = api_as(scope).post(f"{RELAY}/register", json=WHO)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


def test_a_relays_token_is_no_persons(relay: TestClient):
    assert relay.get("/api/v1/jobs").status_code == 401


def test_every_route_tells_a_superseded_relay_so(relay: TestClient, next_relay: Callable[[], TestClient]):
    relay.post(f"{RELAY}/register", json=WHO)
    next_relay()
    ended = {"outcome": "succeeded", "exit_code": 0, "message": "", "may_be_retried": True}
    answers = [
        relay.post(f"{RELAY}/register", json=WHO),
        relay.post(f"{RELAY}/ingest", json=NOTHING_NEW),
        relay.put(f"{RELAY}/samples/step-000001.parquet", content=parquet([ROW])),
        relay.get(f"{RELAY}/commands", params={"wait": 0}),
        relay.get(f"{RELAY}/bundle"),
        relay.post(f"{RELAY}/commands/cmd_1/answer", json={"ok": True, "text": ""}),
        relay.post(f"{RELAY}/ended", json=ended),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "superseded")] * 7


def test_commands_come_until_they_are_held_and_again_where_they_got_lost(relay: TestClient, job, db: Database):
    relay.post(f"{RELAY}/register", json=WHO)
    command_id = add_command(db, job)
    for _ in range(2):
        told = relay.get(f"{RELAY}/commands", params={"wait": 0}).json()["commands"]
        assert told == [{"command_id": command_id, "body": {"command": "Pause"}, "expires_s": None}]
    assert relay.get(f"{RELAY}/commands", params={"wait": 0, "held": command_id}).json()["commands"] == []
    relay.post(f"{RELAY}/commands/{command_id}/answer", json={"ok": True, "text": "paused"})
    assert relay.get(f"{RELAY}/commands", params={"wait": 0}).json()["commands"] == []


def test_a_relay_is_given_no_more_commands_than_it_may_hold(relay: TestClient, job, db: Database):
    relay.post(f"{RELAY}/register", json=WHO)
    for _ in range(MAX_HELD + 1):
        add_command(db, job)
    told = relay.get(f"{RELAY}/commands", params={"wait": 0}).json()["commands"]
    held = [each["command_id"] for each in told]
    answer = relay.get(f"{RELAY}/commands", params={"wait": 0, "held": held})
    assert (answer.status_code, answer.json()["commands"]) == (200, [])
    told = relay.get(f"{RELAY}/commands", params={"wait": 0, "held": held[1:]}).json()["commands"]
    assert len(told) == 1


def test_a_command_whose_time_is_over_is_not_delivered(relay: TestClient, job, db: Database):
    relay.post(f"{RELAY}/register", json=WHO)
    command_id = add_command(db, job, expires_s=time.time() - 1)
    assert relay.get(f"{RELAY}/commands", params={"wait": 0}).json()["commands"] == []
    with db.reading() as connection:
        row = commands.get(connection, command_id)
    assert row is not None
    assert row.state == "expired"


def test_a_kill_is_told_at_once_and_in_place_of_commands(relay: TestClient, job, db: Database, api: TestClient):
    add_command(db, job)
    assert api.post(f"/api/v1/jobs/{job['job_id']}/kill").status_code == 202
    assert relay.get(f"{RELAY}/commands?wait=30").json() == {"commands": [], "kill": True}


def test_a_file_of_samples_is_taken_once(relay: TestClient, job, db: Database):
    relay.post(f"{RELAY}/register", json=WHO)
    for _ in range(2):
        assert relay.put(f"{RELAY}/samples/step-000001.parquet", content=parquet([ROW])).status_code == 204
    with db.reading() as connection:
        rows, _ = samples.page(connection, job["job_id"], limit=10)
    assert [(row.step, row.completion, row.reward) for row in rows] == [(1, "b", 0.5)]


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("step-1.parquet", parquet([ROW]), 422),
        ("passwd", parquet([ROW]), 422),
        ("step-000001.parquet", b"no parquet", 422),
        ("step-000001.parquet", bytes(200_000), 413),
    ],
)
def test_what_is_no_file_of_samples_is_refused(relay: TestClient, name: str, content: bytes, status: int):
    relay.post(f"{RELAY}/register", json=WHO)
    answer = relay.put(f"{RELAY}/samples/{name}", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_job_without_code_has_no_bundle(relay: TestClient):
    relay.post(f"{RELAY}/register", json=WHO)
    assert relay.get(f"{RELAY}/bundle").status_code == 404
