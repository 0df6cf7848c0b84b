"""How much a request may send, and answers of those who keep the service alive."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from rlhf_cluster.service.app import create_app
from rlhf_cluster.service.settings import ServiceSettings

from .answers import BODY, JOBS, refusal
from .conftest import URL


@pytest.fixture
def narrow(tmp_path):
    app = create_app(ServiceSettings(data_dir=tmp_path, max_body_bytes=1000, auth=False))
    yield TestClient(app, base_url=URL, raise_server_exceptions=False)
    app.state.service.db.close()


def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_read(narrow):
    detail = refusal(narrow.post(JOBS, content=b" " * 1001), 413, "too_large")
    assert "may have 1000 bytes" in detail
    assert narrow.post(JOBS, json=BODY).status_code == 201


def test_a_body_that_does_not_say_how_long_it_is_is_refused_when_it_is(narrow):
    pieces = (b" " * 100 for _ in range(11))
    answer = narrow.post(JOBS, content=pieces, headers={"Content-Type": "application/json"})
    assert "may have 1000 bytes" in refusal(answer, 413, "too_large")
    packed = json.dumps(BODY).encode()
    pieces = (packed[at : at + 10] for at in range(0, len(packed), 10))
    assert narrow.post(JOBS, content=pieces, headers={"Content-Type": "application/json"}).status_code == 201


def test_files_have_a_bound_of_their_own(narrow):
    answer = narrow.put(f"/api/v1/uploads/{'0' * 64}", content=b" " * 2000)
    refusal(answer, 422, "wrong_sha256")


def test_not_ready_is_a_problem_too(app, db):
    probe = TestClient(app, base_url="http://192.0.2.3:8420", raise_server_exceptions=False)
    assert probe.get("/readyz").json() == {"status": "ok"}
    assert probe.get("/healthz").json() == {"status": "ok"}
    with db.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    assert "not migrated" in refusal(probe.get("/readyz"), 503, "not_ready")
