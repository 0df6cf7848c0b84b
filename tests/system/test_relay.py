"""A job of the service from its registration to its end: a real API in a process of its own, a real relay, a real
driver with a real (350k-parameter) model. Whatever of the three is killed, what the others say is true."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from rlhf_cluster.config import load_job
from rlhf_cluster.driver.observers import journal
from rlhf_cluster.service.store import attempts, commands, events, jobs, metrics, pools, samples
from rlhf_cluster.service.store import logs as log_lines
from rlhf_cluster.service.store.database import Database

pytestmark = pytest.mark.slow
BOUND_S = 150.0
QUICK = (
    "runtime=local",
    "rollout.engine.type=transformers",
    "train.prompts_per_step=2",
    "train.completions_per_prompt=2",
    "evaluation.num_prompts=1",
    "evaluation.completions_per_prompt=1",
    "algorithm.keep_zero_variance=true",
    "checkpoint.every_steps=20",
    'observers=["journal","console","samples"]',
)
SERVE = """
import sys, uvicorn
from rlhf_cluster.service.app import create_app
from rlhf_cluster.service.settings import ServiceSettings
app = create_app(ServiceSettings(data_dir=sys.argv[1], port=int(sys.argv[2]), lease_s=float(sys.argv[3])))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", timeout_graceful_shutdown=1)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait(what: Callable[[], Any], name: str) -> Any:
    deadline_s = time.monotonic() + BOUND_S
    while not (found := what()):
        assert time.monotonic() < deadline_s, f"{name} never came true"
        time.sleep(0.05)
    return found


class Service:
    """The API, its database as a test looks into it, and the relays that a Ray cluster would start."""

    def __init__(self, home: Path, data_dir: Path) -> None:
        self._home, self._data_dir = home, data_dir
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port = free_port()
        self.api = self.serve()
        self.db = Database(f"sqlite:///{data_dir / 'service.db'}")

    def serve(self) -> subprocess.Popen[bytes]:
        self.api = self._start("-c", SERVE, str(self._data_dir), str(self.port), "45")
        wait(self._answers, "the API")
        return self.api

    def _answers(self) -> bool:
        assert self.api.poll() is None
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _start(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment = {**kept, "RLHF_CLUSTER_HOME": str(self._home), **env}
        self._processes.append(subprocess.Popen([sys.executable, *arguments], env=environment))
        return self._processes[-1]

    def submit(self, num_steps: int, *, settings: tuple[str, ...] = ()) -> str:
        job = load_job("word-world", (*QUICK, f"train.num_steps={num_steps}", *settings))
        with self.db.writing() as connection:
            row = jobs.add(
                connection,
                name=job.name,
                owner="ada",
                labels={},
                notes="",
                source="",
                config=json.loads(job.model_dump_json()),
                num_steps=num_steps,
                max_attempts=3,
                bundle_sha256=None,
                now_s=time.time(),
            )
            pools.ensure(connection, row.job_id, job)
            return row.job_id

    def relay(self, job_id: str) -> subprocess.Popen[bytes]:
        """The next attempt, as it would be submitted to Ray."""
        with self.db.writing() as connection:
            before = attempts.newest(connection, job_id)
            number = before.number + 1 if before else 1
            _, secret = attempts.add(connection, job_id, number, submission_id=f"{job_id}-{number}", now_s=time.time())
            attempts.submitted(connection, job_id, number, now_s=time.time())
        url = f"http://127.0.0.1:{self.port}"
        return self._start("-m", "rlhf_cluster.relay", RLHF_SERVICE_URL=url, RLHF_ATTEMPT_TOKEN=secret)

    def job_dir(self, job_id: str) -> Path:
        return self._data_dir / "jobs" / job_id

    def look(self, read: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with self.db.reading() as connection:
            return read(connection, *arguments, **options)

    def steps(self, job_id: str) -> list[int]:
        rows = self.look(events.after, 0, job_id=job_id, limit=10_000)
        return [row.step for row in rows if row.kind == "StepDone"]

    def wait_for_step(self, job_id: str, step: int) -> None:
        wait(lambda: max(self.steps(job_id), default=0) >= step, f"step {step}")

    def attempt(self, job_id: str) -> Any:
        return self.look(attempts.newest, job_id)

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.db.close()


@pytest.fixture
def service(word_world_home: Path, tmp_path: Path) -> Iterator[Service]:
    running = Service(word_world_home, tmp_path / "data")
    yield running
    running.close()


def driver_of(relay: subprocess.Popen[bytes]) -> psutil.Process:
    """The relay's child, which has become the command line by then."""
    [child] = wait(lambda: psutil.Process(relay.pid).children(), "the driver")
    wait(lambda: "resume" in child.cmdline() and "rlhf_cluster.tied" not in child.cmdline(), "its exec")
    return child


def test_every_entry_arrives_once_although_the_api_is_killed_and_comes_back(service: Service):
    job_id = service.submit(60)
    relay = service.relay(job_id)
    service.wait_for_step(job_id, 5)
    service.api.kill()
    service.api.wait()
    reached = len(journal_of(service, job_id))
    wait(lambda: len(journal_of(service, job_id)) > reached + 10, "steps without a service")
    assert relay.poll() is None
    service.serve()
    assert relay.wait(BOUND_S) == 0
    entries = journal_of(service, job_id)
    row = service.look(jobs.get, job_id)
    assert row.num_entries == len(entries)
    assert service.steps(job_id) == list(range(1, 61))
    [series] = service.look(metrics.series, job_id, ["reward/mean"])
    assert series.steps == list(range(1, 61))
    told = [entry["metrics"]["reward/mean"] for entry in entries if entry["event"] == "StepDone"]
    assert series.values == pytest.approx(told)
    assert (row.step, row.view["state"]) == (60, "succeeded")
    files = {path.name for path in (service.job_dir(job_id) / "samples").glob("*.parquet")}
    assert set(service.look(samples.files, job_id)) == files
    assert len(files) >= 60
    groups = next(entry["groups"] for entry in entries if entry["event"] == "StepDone")
    kept, _ = service.look(samples.page, job_id, limit=100, step=1, kind="step")
    assert {sample.request_id for sample in kept} == {group["request_id"] for group in groups}
    siblings, _ = service.look(samples.page, job_id, limit=100, request_id=groups[0]["request_id"])
    assert [sample.prompt_id for sample in siblings] == [groups[0]["prompt_id"]] * 2
    lines = [line.line for line in service.look(log_lines.page, job_id, component="driver", limit=10_000)]
    written = (service.job_dir(job_id) / "logs" / "driver.log").read_text().splitlines()
    assert lines == written
    attempt = service.attempt(job_id)
    assert (attempt.state, attempt.outcome, attempt.exit_code) == ("ended", "succeeded", 0)
    assert attempt.message == "60 steps done"


def journal_of(service: Service, job_id: str) -> list[dict[str, Any]]:
    return list(journal.read(service.job_dir(job_id)))


def test_a_killed_driver_is_told_with_its_signal_and_the_next_attempt_goes_on(service: Service):
    job_id = service.submit(40)
    relay = service.relay(job_id)
    service.wait_for_step(job_id, 3)
    driver_of(relay).kill()
    assert relay.wait(BOUND_S) == 128 + signal.SIGKILL
    attempt = service.attempt(job_id)
    assert (attempt.state, attempt.outcome, attempt.exit_code) == ("ended", "failed", -signal.SIGKILL)
    assert attempt.message == "the driver was ended by SIGKILL (signal 9)"
    assert attempt.may_be_retried
    [ended] = [row for row in service.look(events.after, 0, job_id=job_id, limit=10_000) if row.kind == "AttemptEnded"]
    assert any("step 3/40" in line for line in ended.body["last_lines"])
    again = service.relay(job_id)
    assert again.wait(BOUND_S) == 0
    assert service.look(jobs.get, job_id).num_entries == len(journal_of(service, job_id))
    steps = [entry["step"] for entry in journal_of(service, job_id) if entry["event"] == "StepDone"]
    assert service.steps(job_id) == steps
    assert steps == list(range(1, 41))  # also the one that it was killed in
    assert service.attempt(job_id).outcome == "succeeded"


def test_a_superseded_relay_ends_its_driver_and_the_next_one_drives_on(service: Service):
    job_id = service.submit(10_000)
    relay = service.relay(job_id)
    service.wait_for_step(job_id, 2)
    driver = driver_of(relay)
    with service.db.writing() as connection:
        attempts.lose(connection, job_id, 1, message="given up by a test", now_s=time.time())
    next_relay = service.relay(job_id)
    assert relay.wait(BOUND_S) == 1
    assert not driver.is_running()
    reached = max(service.steps(job_id))
    service.wait_for_step(job_id, reached + 3)
    assert next_relay.poll() is None
    assert service.attempt(job_id).number == 2


def test_a_driver_dies_with_its_relay(service: Service):
    job_id = service.submit(10_000)
    relay = service.relay(job_id)
    service.wait_for_step(job_id, 1)
    driver = driver_of(relay)
    relay.kill()
    relay.wait()
    psutil.wait_procs([driver], timeout=20)
    assert not driver.is_running()


def test_commands_are_obeyed_and_answered_once(service: Service):
    job_id = service.submit(10_000)
    relay = service.relay(job_id)
    service.wait_for_step(job_id, 1)
    with service.db.writing() as connection:
        wanted = pools.want(
            connection, job_id, "rollout", generation=1, mode="manual", replicas=2, min_replicas=None, max_replicas=None
        )
        assert wanted is not None
        body = {"command": "Scale", "role": "rollout", "num_workers": 2}
        scale = commands.add(connection, job_id, body, created_by="ada", now_s=time.time())
    answered = wait(lambda: answer_of(service, scale.command_id), "the answer to scale")
    assert (answered.state, answered.answer) == ("done", "rollout: 1 -> 2 wanted from now on")
    assert service.look(pools.get, job_id, "rollout").observed_generation == 2
    wait(lambda: service.look(jobs.get, job_id).view["pools"][0]["desired"] == 2, "two workers")
    with service.db.writing() as connection:
        stop = commands.add(connection, job_id, {"command": "Stop"}, created_by="ada", now_s=time.time())
        nonsense = commands.add(connection, job_id, {"command": "Fly"}, created_by="ada", now_s=time.time())
    assert relay.wait(BOUND_S) == 130
    assert answer_of(service, stop.command_id).state == "done"
    assert answer_of(service, nonsense.command_id).state == "refused"
    attempt = service.attempt(job_id)
    assert (attempt.state, attempt.outcome) == ("ended", "interrupted")
    rows = service.look(events.after, 0, job_id=job_id, limit=10_000)
    assert [row.body["command_id"] for row in rows if row.kind == "CommandAnswered"].count(scale.command_id) == 1


def answer_of(service: Service, command_id: str) -> Any:
    row = service.look(commands.get, command_id)
    return row if row.answered_s is not None else None


@pytest.mark.long
def test_a_terminated_relay_lets_the_driver_end_with_a_checkpoint(service: Service):
    job_id = service.submit(10_000)
    relay = service.relay(job_id)
    service.wait_for_step(job_id, 1)
    relay.terminate()
    assert relay.wait(BOUND_S) == 130
    attempt = service.attempt(job_id)
    assert (attempt.outcome, attempt.exit_code) == ("interrupted", 130)
    assert list((service.job_dir(job_id) / "checkpoints").glob("step-*/model.safetensors"))


def test_a_stop_of_ray_which_signals_relay_and_driver_lets_the_driver_end_with_a_checkpoint(service: Service):
    long_steps = ("train.prompts_per_step=24", "train.completions_per_prompt=8")
    job_id = service.submit(10_000, settings=long_steps)
    relay = service.relay(job_id)
    service.wait_for_step(job_id, 1)
    root, driver = psutil.Process(relay.pid), driver_of(relay)
    processes = [root, *root.children(recursive=True)]
    assert driver in processes
    root.terminate()  # as the job supervisor of Ray does: each process by its id, the relay first
    log = service.job_dir(job_id) / "logs" / "driver.log"
    wait(lambda: "stopping after the current step" in log.read_text(), "the relay's own signal")
    for process in processes[1:]:
        process.terminate()
    assert relay.wait(BOUND_S) == 130
    attempt = service.attempt(job_id)
    assert (attempt.outcome, attempt.exit_code) == ("interrupted", 130)
    assert attempt.message.startswith("stopped after step")
    reached = max(service.steps(job_id))
    assert (service.job_dir(job_id) / "checkpoints" / f"step-{reached:06d}" / "model.safetensors").is_file()


def test_a_job_whose_model_does_not_exist_is_not_retried(service: Service):
    job_id = service.submit(1, settings=("model=nowhere/at-all",))
    assert service.relay(job_id).wait(BOUND_S) == 2
    attempt = service.attempt(job_id)
    assert (attempt.outcome, attempt.may_be_retried) == ("failed", False)
    assert "nowhere/at-all" in attempt.message
