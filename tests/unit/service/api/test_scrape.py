"""What Prometheus reads."""

from __future__ import annotations

import time

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from rlhf_cluster.service.app import create_app
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import attempts, jobs, metrics

from .answers import refusal


def figures(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_jobs_requests_and_the_newest_metrics_of_running_jobs_are_told(api, submit, db):
    running, queued = submit()["job_id"], submit()["job_id"]
    with db.writing() as connection:
        jobs.set_state(connection, running, "running", message="", now_s=1.0)
        for job_id in (running, queued):
            values = {"reward/mean": 0.5, "learner/kl": float("nan"), "learner/lr": 1e-5}
            metrics.add(connection, job_id, step=4, time_s=1.0, values=values)
    told = figures(api.get("/metrics"))
    assert told["rlhf_jobs", ("state", "running")] == 1
    assert told["rlhf_jobs", ("state", "queued")] == 1
    assert told["rlhf_requests_total", ("method", "POST"), ("status", "201")] == 2
    assert told["rlhf_event_streams",] == 0
    newest = {key: value for key, value in told.items() if key[0] == "rlhf_job_metric"}
    assert newest == {("rlhf_job_metric", ("key", "reward/mean"), ("rlhf_job", running)): 0.5}


def test_rows_that_relays_send_are_counted(api, app, submit, db):
    job_id = submit()["job_id"]
    with db.writing() as connection:
        _, secret = attempts.add(connection, job_id, 1, submission_id="s", now_s=time.time())
    news = {
        "first_entry": 0,
        "entries": [{"event": "Notice", "time_s": 1.0, "step": 0, "text": "hello"}],
        "lines": [{"component": "driver", "offset": 0, "line": "a line", "time_s": 1.0}],
    }
    relay = {"Authorization": f"Bearer {secret}"}
    assert api.post("/api/v1/relay/ingest", json=news, headers=relay).status_code == 200
    told = figures(api.get("/metrics"))
    assert told["rlhf_ingested_rows_total", ("kind", "entry")] == 1
    assert told["rlhf_ingested_rows_total", ("kind", "log line")] == 1


def test_methods_that_somebody_made_up_are_one_series(api):
    for method in ("BREW", "PROPFIND"):
        api.request(method, "/api/v1/jobs")
    told = figures(api.get("/metrics"))
    assert told["rlhf_requests_total", ("method", "other"), ("status", "405")] == 2


def test_a_token_is_needed_unless_the_settings_say_otherwise(app, tmp_path):
    stranger = TestClient(app, base_url="http://127.0.0.1:8420", raise_server_exceptions=False)
    refusal(stranger.get("/metrics"), 401, "unauthenticated")
    opened = create_app(ServiceSettings(data_dir=tmp_path / "open", open_metrics=True))
    try:
        figures(TestClient(opened, base_url="http://127.0.0.1:8420").get("/metrics"))
    finally:
        opened.state.service.db.close()


@pytest.mark.parametrize("scope", ["read", "admin"])
def test_any_token_that_may_read_may_scrape(api_as, scope):
    figures(api_as(scope).get("/metrics"))
