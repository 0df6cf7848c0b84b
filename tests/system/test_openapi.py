"""The committed description of the API is what the service gives, and what the service answers is what it describes."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance
from sqlalchemy import Connection

from rlhf_cluster.service.app import create_app
from rlhf_cluster.service.openapi import COMMITTED, text_of
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import attempts, checkpoints, events, jobs, logs, metrics, pools, samples, tokens
from rlhf_cluster.service.submission import resolve
from rlhf_cluster.wire.jobs import Submit
from rlhf_cluster.wire.relay import LogLine

DESCRIBED = json.loads(COMMITTED.read_text(encoding="utf-8"))
ENDLESS = "text/event-stream"
BOUND_S = 30.0


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DESCRIBED["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_the_committed_description_is_what_the_service_gives(tmp_path):
    app = create_app(ServiceSettings(data_dir=tmp_path))
    given = text_of(app)
    app.state.service.db.close()
    assert given == COMMITTED.read_text(encoding="utf-8"), "python -m rlhf_cluster.service.openapi writes it anew"


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does():
    counts = Counter(operation["operationId"] for _, _, operation in operations())
    assert [name for name, count in counts.items() if count > 1] == []
    assert [path for _, path, operation in operations() if not operation["summary"]] == []


def test_every_operation_refuses_with_a_problem():
    for _, path, operation in operations():
        assert "application/problem+json" in operation["responses"]["default"]["content"], path
    assert "HTTPValidationError" not in COMMITTED.read_text(encoding="utf-8")


def test_reading_changes_nothing_labelling_only_labels_and_neither_runs_anything():
    """Whoever may submit may run code; so every operation that leads there says that it needs that scope."""
    outside = ("/api/v1/auth/session", "/api/v1/relay")  # logging in and out, and relays with tokens of their own
    lesser = [
        (method, path)
        for method, path, operation in operations()
        if method not in ("get", "head") and not path.startswith(outside) and scope_of(operation) in ("read", "label")
    ]
    assert lesser == [
        ("post", "/api/v1/auth/login-links"),  # for the same scopes that whoever asks has
        *(("post", f"/api/v1/label-sets/{{name}}/{path}") for path in ("labels", "next", "undo")),
    ]
    assert {path for _, path, operation in operations() if scope_of(operation) is None} == {
        *(path for _, path, _ in operations() if path.startswith(outside)),
        "/api/v1/version",
        "/healthz",
        "/metrics",
        "/readyz",
    }


def scope_of(operation: dict[str, Any]) -> str | None:
    return next((scopes[0] for each in operation.get("security", ()) for scopes in each.values() if scopes), None)


@dataclass(frozen=True)
class Server:
    url: str
    secrets: dict[str, str]
    """By scope."""
    job_ids: tuple[str, ...]
    """One that has something of everything, and one that is over."""
    attempt_secret: str
    """Of an attempt of the first."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    app = create_app(ServiceSettings(data_dir=tmp_path_factory.mktemp("service")))
    with app.state.service.db.writing() as connection:
        secrets = {
            scope: tokens.add(connection, name=scope, scopes=[scope], now_s=time.time())[1]
            for scope in ("admin", "label", "read")
        }
        job_id, attempt_secret = seed(connection)
        over_id, _ = seed(connection)
        jobs.set_state(connection, over_id, "failed", message="out of memory", now_s=time.time())
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    deadline_s = time.monotonic() + BOUND_S
    while not running.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield Server(f"http://127.0.0.1:{port}", secrets, (job_id, over_id), attempt_secret)
    running.should_exit = True
    thread.join(BOUND_S)


def seed(connection: Connection) -> tuple[str, str]:
    now_s = time.time()
    resolved = resolve(Submit(recipe="word-world"))
    job_id = jobs.add(
        connection,
        name="word-world",
        owner="ada",
        labels={"team": "a"},
        notes="",
        source=resolved.source,
        config=resolved.config,
        num_steps=40,
        max_attempts=3,
        bundle_sha256=None,
        now_s=now_s,
    ).job_id
    pools.ensure(connection, job_id, resolved.job)
    _, secret = attempts.add(connection, job_id, 1, submission_id=f"{job_id}-1", now_s=now_s)
    attempts.register(connection, job_id, 1, host="node-1", process_id=7, lease_until_s=now_s + 3600.0)
    jobs.set_state(connection, job_id, "running", message="", now_s=now_s)
    for step in range(3):
        metrics.add(connection, job_id, step=step, time_s=now_s, values={"reward/mean": 0.5 * step, "learner/kl": None})
    events.add(connection, topic="jobs", job_id=job_id, time_s=now_s, step=0, kind="Phase", text="starting", body={})
    checkpoints.add(connection, job_id, step=2, path=f"{job_id}/step-2", time_s=now_s)
    row = {"step": 1, "prompt_id": "p", "prompt": "say", "completion": "said", "reward": 0.5, "length": 4}
    samples.add_file(
        connection, job_id, "step-000001.parquet", [{**row, "request_id": 7, "reward/length": 0.5}], keep=9
    )
    logs.add(connection, job_id, [LogLine(component="driver", offset=0, line="begun", time_s=now_s)])
    return job_id, secret


@schemathesis.serializer("application/zip", "application/vnd.apache.parquet")
def as_it_is(context: schemathesis.SerializationContext, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


endless = [
    path for _, path, operation in operations() if ENDLESS in operation["responses"].get("200", {}).get("content", {})
]
api = schemathesis.openapi.from_path(str(COMMITTED)).exclude(path=endless)


bounded = settings(
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@pytest.mark.slow
@api.parametrize()
@bounded
def test_whatever_is_asked_the_answer_is_as_described_and_no_failure(case, server):
    is_relay = case.path.startswith("/api/v1/relay")
    answer_to(case, server, secret=server.attempt_secret if is_relay else server.secrets["admin"])


@pytest.mark.slow
@api.parametrize()
@settings(bounded, max_examples=2)
def test_whatever_is_asked_nobody_gets_further_than_the_scope_of_the_token(case, server):
    """With `read` and `label` in turns."""
    scope = "label" if len(case.operation.path) % 2 else "read"
    answer = answer_to(case, server, secret=server.secrets[scope])
    needed = scope_of(DESCRIBED["paths"][case.operation.path][case.operation.method.lower()])
    if case.operation.path.startswith("/api/v1/relay"):
        assert answer.status_code == 401 or answer.status_code in MALFORMED
    elif needed not in (None, "read", scope):
        assert answer.status_code == 403 or answer.status_code in MALFORMED


MALFORMED = (400, 404, 405, 415, 422)
"""Told before anybody looks at who asks: a path that is none, or a body that is no JSON."""


def answer_to(case, server: Server, *, secret: str):
    """Checked to be no failure and as described. Most of what is asked is about jobs that are there."""
    parameters = case.path_parameters or {}
    if "job_id" in parameters:
        there = (*server.job_ids, parameters["job_id"])
        parameters["job_id"] = there[len(str(parameters["job_id"])) % len(there)]
    if case.operation.path == "/api/v1/relay/commands":
        case.query["wait"] = 0
    return case.call_and_validate(
        base_url=server.url,
        headers={"Authorization": f"Bearer {secret}"},
        checks=[not_a_server_error, response_schema_conformance],
        timeout=BOUND_S,
    )
