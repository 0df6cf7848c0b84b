"""Whatever is killed while a job of the service runs - the API, the driver, the head of Ray - nothing is lost or told
twice, and what is said of the job is true. One service with a real Ray of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from .up_service import UpService, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def listen(service: UpService, job_id: str, *, after: int, until: str) -> Iterator[dict[str, Any]]:
    """The events of a job as a page hears them, up to the first of a kind; ends too when the service goes."""
    headers, query = {"Last-Event-ID": str(after)}, {"job_id": job_id, "topics": "jobs,metrics,workers"}
    try:
        with service.http() as http, http.stream("GET", "/events/stream", params=query, headers=headers) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                event = json.loads(line[5:]) if line.startswith("data:") else {}
                if "event_id" in event:
                    yield event
                    if event["kind"] == until:
                        return
    except httpx.TransportError:
        return


def assert_told_once(service: UpService, job_id: str) -> None:
    """What the driver wrote down is what the database has, row by row, and nothing else."""
    rows = service.metric_rows(job_id)
    assert max(Counter((key, step) for key, step, _ in rows).values()) == 1
    assert {(key, step): value for key, step, value in rows} == pytest.approx(service.journal_rows(job_id))
    written = [entry["step"] for entry in service.journal(job_id) if entry["event"] == "StepDone"]
    assert [event["step"] for event in service.events(job_id, "StepDone")] == written


def test_an_api_that_is_killed_hurts_no_job_and_loses_and_repeats_nothing(up_service):
    job_id = up_service.submit("train.num_steps=80", "train.prompts_per_step=8")
    heard: list[int] = []
    for event in listen(up_service, job_id, after=0, until="JobOver"):
        heard.append(event["event_id"])
        if event["kind"] == "StepDone" and event["step"] == 5:
            os.kill(up_service.state()["server"]["process_id"], signal.SIGKILL)
    reached = len(up_service.journal(job_id))
    driver = up_service.driver(job_id, 1)
    wait(lambda: len(up_service.journal(job_id)) >= reached + 10, "steps without a service")
    assert not up_service.up()["was_up"]
    heard += [event["event_id"] for event in listen(up_service, job_id, after=heard[-1], until="JobOver")]
    job = up_service.end_of(job_id)
    assert (job["state"], job["step"], job["num_attempts"]) == ("succeeded", 80, 1)
    psutil.wait_procs([driver], timeout=60)
    assert_told_once(up_service, job_id)
    assert [event["step"] for event in up_service.events(job_id, "StepDone")] == list(range(1, 81))
    assert heard == [event["event_id"] for event in up_service.events(job_id)]


@pytest.mark.long
def test_a_killed_driver_is_followed_by_an_attempt_from_its_checkpoint_and_is_fenced(up_service):
    job_id = up_service.submit("train.num_steps=30", "checkpoint.every_steps=5")
    up_service.wait_for(job_id, lambda job: job["step"] >= 12, "its twelfth step")
    token = up_service.relay(job_id, 1).environ()["RLHF_ATTEMPT_TOKEN"]
    up_service.driver(job_id, 1).kill()
    up_service.wait_for(job_id, lambda job: job["num_attempts"] == 2 and job["state"] == "running", "another attempt")
    assert said_to_relay(up_service, token) == (409, "superseded")
    job = up_service.end_of(job_id)
    assert (job["state"], job["step"], job["num_attempts"]) == ("succeeded", 30, 2)
    newest, oldest = up_service.get(f"/jobs/{job_id}/attempts")["items"]
    assert (oldest["outcome"], oldest["message"]) == ("failed", "the driver was ended by SIGKILL (signal 9)")
    assert newest["outcome"] == "succeeded"
    started, resumed = up_service.events(job_id, "JobStarted")
    assert started["text"] == "started: steps 1 to 30"
    assert int(resumed["body"]["first_step"]) >= 10
    assert_told_once(up_service, job_id)
    audited = up_service.rlhf("audit", str(up_service.job_dir(job_id)))
    assert audited.code == 0, audited.out + audited.err


def said_to_relay(service: UpService, token: str) -> tuple[int, str]:
    """What a relay with this secret hears when it tells something."""
    body = {"first_entry": 0, "entries": [], "view": None, "lines": []}
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{service.server()['url']}/api/v1/relay/ingest"
    answer = httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)
    return answer.status_code, answer.json()["code"]


class Head:
    """The private Ray of a service, which a test kills and starts again at the same address."""

    def __init__(self, service: UpService) -> None:
        ray = service.state()["ray"]
        self._temp_dir = Path(ray["temp_dir"])
        self._process = psutil.Process(ray["process"]["process_id"])
        self._command, self._env = self._process.cmdline(), self._process.environ()

    def kill(self) -> None:
        """With all that runs on its machine: drivers and roles too."""
        family = [self._process, *self._process.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)

    def start(self) -> None:
        shutil.rmtree(self._temp_dir)
        self._temp_dir.mkdir()
        started = subprocess.Popen(self._command, env=self._env, start_new_session=True, stdout=subprocess.DEVNULL)
        self._process = psutil.Process(started.pid)


@pytest.fixture
def head(up_service: UpService) -> Iterator[Head]:
    """Last in this file: `rlhf down` does not know the head that a test has started."""
    head = Head(up_service)
    yield head
    head.kill()


@pytest.mark.long
def test_a_head_of_ray_that_is_killed_and_comes_back_is_told_and_the_job_goes_on(up_service, head):
    job_id = up_service.submit("train.num_steps=60", "checkpoint.every_steps=5")
    up_service.wait_for(job_id, lambda job: job["step"] >= 12, "its twelfth step")
    head.kill()
    waiting = up_service.wait_for(job_id, lambda job: job["message"].startswith("waiting for Ray"), "what it waits for")
    assert waiting["state"] == "launching", "nothing of it runs"
    [lost] = up_service.events(job_id, "AttemptLost")
    assert "was given up: its driver has said nothing for 45 s" in lost["text"]
    assert not up_service.get("/cluster")["is_reachable"]
    head.start()
    job = up_service.end_of(job_id)
    assert (job["state"], job["step"], job["num_attempts"]) == ("succeeded", 60, 2), job
    assert up_service.get("/cluster")["is_reachable"]
    server = up_service.state()["server"]
    assert psutil.Process(server["process_id"]).create_time() == pytest.approx(server["started_s"], abs=2)
    assert_told_once(up_service, job_id)
