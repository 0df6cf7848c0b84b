"""`rlhf up` as a person uses it: a real Ray of its own, a job over HTTP, and nothing left behind by `rlhf down`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BOUND_S = 240
OVER = ("succeeded", "failed", "cancelled")
TINY = [
    "runtime=ray",
    "rollout.engine.type=transformers",
    "rollout.num_workers=1",
    "train.num_steps=3",
    "train.prompts_per_step=4",
    "algorithm.keep_zero_variance=true",
    "evaluation.num_prompts=1",
    'observers=["journal"]',
]


@dataclass
class Service:
    home: Path
    data_dir: Path

    def call(self, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "rlhf_cluster.cli", *arguments, "--data-dir", str(self.data_dir), "-o", "json"],
            env={**os.environ, "RLHF_CLUSTER_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def server(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "server.json").read_text())

    def state(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "up.json").read_text())

    def http(self) -> httpx.Client:
        server = self.server()
        headers = {"Authorization": f"Bearer {server['token']}"}
        return httpx.Client(base_url=f"{server['url']}/api/v1", headers=headers, timeout=30, trust_env=False)

    def submit(self, *overrides: str, max_attempts: int = 3) -> str:
        body = {"recipe": "word-world", "overrides": [*TINY, *overrides], "max_attempts": max_attempts}
        with self.http() as http:
            answer = http.post("/jobs", json=body)
            assert answer.status_code == 201, answer.text
            return answer.json()["job_id"]

    def wait_for(self, job_id: str, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline_s = time.monotonic() + BOUND_S
        with self.http() as http:
            while not is_there(job := http.get(f"/jobs/{job_id}").json()):
                assert time.monotonic() < deadline_s, job
                time.sleep(0.3)
        return job

    def journal(self, job_id: str, event: str) -> list[dict[str, Any]]:
        lines = (self.data_dir / "jobs" / job_id / "journal.jsonl").read_text().splitlines()
        return [entry for line in lines if (entry := json.loads(line))["event"] == event]

    def processes(self) -> list[psutil.Process]:
        roots = [
            psutil.Process(each["process_id"]) for each in (self.state()["server"], self.state()["ray"]["process"])
        ]
        return [process for root in roots for process in (root, *root.children(recursive=True))]


@pytest.fixture(scope="module")
def service(word_world_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(home=word_world_home, data_dir=tmp_path_factory.mktemp("up") / "service")
    service.call("up")
    yield service
    service.call("down")


def test_a_ray_that_was_starting_when_up_was_interrupted_is_ended_by_down(word_world_home, tmp_path):
    half = Service(home=word_world_home, data_dir=tmp_path / "service")
    command = [sys.executable, "-m", "rlhf_cluster.cli", "up", "--data-dir", str(half.data_dir)]
    with subprocess.Popen(command, env={**os.environ, "RLHF_CLUSTER_HOME": str(half.home)}) as up:
        while not (started := psutil.Process(up.pid).children()):
            assert up.poll() is None
            time.sleep(0.1)
        time.sleep(1.0)  # Ray takes several
        up.send_signal(signal.SIGINT)
    half.call("down")
    _, alive = psutil.wait_procs(started, timeout=0)
    for process in [child for each in alive for child in (*each.children(recursive=True), each)]:
        process.kill()
    assert alive == []


def test_up_twice_says_it_is_up_and_gives_another_login(service):
    again = service.call("up")
    assert again["was_up"]
    assert again["url"] == service.server()["url"]


def test_what_holds_a_secret_is_for_its_owner_alone(service):
    for name in ("server.json", "admin.token", "ray.token", "up.json"):
        assert stat.S_IMODE((service.data_dir / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(service.data_dir.stat().st_mode) == 0o700
    for secret in (service.server()["token"], (service.data_dir / "ray.token").read_text().strip()):
        assert all(secret not in path.read_text() for path in (service.data_dir / "logs").iterdir())


def test_the_login_opens_one_session_and_no_second_one(service):
    url, _, secret = service.call("up")["login_url"].partition("/login#token=")
    with httpx.Client(base_url=f"{url}/api/v1", trust_env=False) as browser:
        assert browser.get("/auth/me", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
        assert browser.post("/auth/session", json={"token": secret}).status_code == 201
        assert browser.get("/auth/me").json()["scopes"] == ["admin"]
        assert browser.post("/auth/session", json={"token": secret}).status_code == 401
        assert browser.post("/auth/login-links").status_code == 403


def test_the_private_ray_is_shown_and_lets_in_nobody_without_its_token(service):
    with service.http() as http:
        cluster = http.get("/cluster").json()
    assert cluster["is_reachable"], cluster
    assert cluster["total"]["CPU"] >= 16
    assert httpx.get(f"{cluster['address']}/api/jobs/", trust_env=False).status_code == 401


@pytest.mark.long
def test_a_job_that_is_submitted_over_http_succeeds(service):
    job_id = service.submit()
    job = service.wait_for(job_id, lambda job: job["state"] in OVER)
    assert job["state"] == "succeeded", job
    assert job["step"] == 3


def test_a_server_that_was_killed_is_started_again_and_its_ray_and_jobs_live_on(service):
    job_id = service.submit("train.num_steps=6")
    service.wait_for(job_id, lambda job: job["state"] == "running")
    before = service.state()
    os.kill(before["server"]["process_id"], signal.SIGKILL)
    again = service.call("up")
    assert not again["was_up"]
    assert service.state()["ray"] == before["ray"]
    job = service.wait_for(job_id, lambda job: job["state"] in OVER)
    assert (job["state"], job["num_attempts"]) == ("succeeded", 1), job


def test_down_leaves_no_process_and_the_jobs_go_on_after_the_next_up(service):
    # No attempt of it may fail: being taken down is no failure of the job's.
    job_id = service.submit("train.num_steps=40", max_attempts=1)
    service.wait_for(job_id, lambda job: job["step"] >= 2 or job["state"] in OVER)
    processes, temp_dir = service.processes(), service.state()["ray"]["temp_dir"]
    assert any("rlhf_cluster.relay" in " ".join(process.cmdline()) for process in processes if process.is_running())
    assert service.call("down")["ended"] == ["the service", "its Ray"]
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert not Path(temp_dir).exists()
    reached = service.journal(job_id, "StepDone")[-1]["step"]
    assert 2 <= reached < 40
    assert service.journal(job_id, "JobEnded")[-1]["outcome"] == "interrupted"
    assert [entry["step"] for entry in service.journal(job_id, "CheckpointSaved")] == [reached]
    assert service.call("down")["ended"] == []
    service.call("up")
    job = service.wait_for(job_id, lambda job: job["state"] in OVER)
    assert (job["state"], job["step"], job["num_attempts"]) == ("succeeded", 40, 2), job
    assert [entry["first_step"] for entry in service.journal(job_id, "JobStarted")] == [0, reached]
    with service.http() as http:
        first = http.get(f"/jobs/{job_id}/attempts/1").json()
        series = http.get(f"/jobs/{job_id}/metrics/series", params={"key": "reward/mean"}).json()
    assert (first["state"], first["outcome"], first["exit_code"]) == ("ended", "interrupted", 130)
    assert [each["steps"] for each in series["series"]] == [list(range(1, 41))]


@pytest.mark.long
def test_a_job_goes_on_although_its_ray_was_killed_under_it(service):
    job_id = service.submit("train.num_steps=60", "checkpoint.every_steps=1", max_attempts=1)
    service.wait_for(job_id, lambda job: job["step"] >= 2 or job["state"] in OVER)
    for process in service.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert not service.call("up")["was_up"]
    job = service.wait_for(job_id, lambda job: job["state"] in OVER)
    assert (job["state"], job["num_attempts"]) == ("succeeded", 2), job
    with service.http() as http:
        first = http.get(f"/jobs/{job_id}/attempts/1").json()
    assert first["was_taken_away"], first
