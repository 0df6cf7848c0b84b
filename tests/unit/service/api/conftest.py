"""The real application on a real SQLite file, asked in process; nothing runs beside the requests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rlhf_cluster.service.app import create_app
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import jobs, tokens
from rlhf_cluster.service.store.database import Database

URL = "http://127.0.0.1:8420"
QUICK = ["rollout.engine.type=scripted", "train.num_steps=3"]


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without rows, made once and only copied."""
    path = tmp_path_factory.mktemp("migrated") / "service.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture
def app(tmp_path: Path, migrated_file: Path) -> Iterator[FastAPI]:
    (tmp_path / "data").mkdir()
    shutil.copy(migrated_file, tmp_path / "data" / "service.db")
    application = create_app(ServiceSettings(data_dir=tmp_path / "data", max_upload_bytes=100_000))
    yield application
    application.state.service.db.close()


@pytest.fixture
def db(app: FastAPI) -> Database:
    return app.state.service.db


@pytest.fixture
def api_as(app: FastAPI, db: Database) -> Callable[[str], TestClient]:
    """A client with a new token of one scope, which is named after it."""

    def client(scope: str) -> TestClient:
        with db.writing() as connection:
            _, secret = tokens.add(connection, name=scope, scopes=[scope], now_s=time.time())
        return TestClient(
            app, base_url=URL, headers={"Authorization": f"Bearer {secret}"}, raise_server_exceptions=False
        )

    return client


@pytest.fixture
def api(api_as: Callable[[str], TestClient]) -> TestClient:
    return api_as("submit")


@pytest.fixture
def submit(api: TestClient) -> Callable[..., dict[str, Any]]:
    """Submits a small job and gives what is answered."""

    def post(*overrides: str, **fields: Any) -> dict[str, Any]:
        answer = api.post("/api/v1/jobs", json={"recipe": "word-world", "overrides": [*QUICK, *overrides], **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return post


@pytest.fixture
def end(db: Database) -> Callable[..., None]:
    """As the reconciler ends a job."""

    def set_state(job_id: str, state: str = "failed", message: str = "out of memory") -> None:
        with db.writing() as connection:
            jobs.set_state(connection, job_id, state, message=message, now_s=time.time())

    return set_state


@pytest.fixture
def saw(db: Database) -> Callable[[str, dict[str, Any]], None]:
    """As the relay tells what the job's driver sees."""

    def tell(job_id: str, view: dict[str, Any]) -> None:
        with db.writing() as connection:
            jobs.saw(connection, job_id, view, now_s=time.time())

    return tell


def view_with(*pools: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A `JobView` as JSON."""
    usual = {
        "time_s": 1.0,
        "epoch": 1,
        "job_name": "word-world",
        "state": "running",
        "phase": "training",
        "step": 2,
        "num_steps": 3,
        "num_in_flight": 0,
        "num_complete": 0,
        "waiting_for": "rollouts",
        "bottleneck": "the learner waits for rollouts",
    }
    return {**usual, **fields, "pools": list(pools)}


def pool_with(role: str, *members: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A `PoolView` as JSON; members are given as `{"worker_id": ..., "state": ...}`."""
    usual = {
        "reason": "",
        "version": -1,
        "num_in_flight": 0,
        "tokens_in_flight": 0,
        "tokens_per_s": 0.0,
        "busy_share": 0.0,
        "rss_bytes": 0,
        "process_id": 0,
        "since_s": 0.0,
    }
    whole = [{"role": role, **usual, **member} for member in members]
    return {"role": role, "desired": len(whole), "num_restarts": 0, "last_error": "", **fields, "members": whole}


@pytest.fixture
def busy_view() -> dict[str, Any]:
    """Two rollout workers of which one has no machine, a reward server and a learner at version 5."""
    return view_with(
        pool_with(
            "rollout worker",
            {"worker_id": "rollout-0", "state": "serving", "version": 4, "tokens_per_s": 120.0},
            {"worker_id": "rollout-1", "state": "pending", "reason": "no node has 1 GPU free"},
            num_restarts=1,
            last_error="rollout-7 died",
        ),
        pool_with("reward server", {"worker_id": "reward-0", "state": "serving"}),
        pool_with("learner", {"worker_id": "learner-0", "state": "serving", "version": 5}),
    )
