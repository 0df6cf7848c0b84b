"""The service as `rlhf up` starts it, for the tests of a file: command lines, REST, the database, and the processes
that tests kill. A real private Ray, real relays, real drivers of a generated model."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from rlhf_cluster.driver.observers import journal

BOUND_S = 240
OVER = ("succeeded", "failed", "cancelled")
TINY = (
    "runtime=ray",
    "rollout.engine.type=transformers",
    "rollout.num_workers=1",
    "train.prompts_per_step=4",
    "train.completions_per_prompt=4",
    "algorithm.keep_zero_variance=true",
    "evaluation.num_prompts=1",
)
"""Settings with which the word world takes tenths of a second a step."""
Rows = dict[tuple[str, int], float | None]
"""Metric and step -> value."""


def wait(what: Callable[[], Any], name: str) -> Any:
    deadline_s = time.monotonic() + BOUND_S
    while not (found := what()):
        assert time.monotonic() < deadline_s, f"{name} never came true"
        time.sleep(0.2)
    return found


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class UpService:
    home: Path
    data_dir: Path

    def up(self) -> dict[str, Any]:
        return self._steer("up")

    def down(self) -> dict[str, Any]:
        return self._steer("down")

    def _steer(self, verb: str) -> dict[str, Any]:
        done = self._finished(verb, "--data-dir", str(self.data_dir), "-o", "json")
        assert done.code == 0, done.out + done.err
        return json.loads(done.out)

    def rlhf(self, *arguments: str, **env: str) -> Said:
        """A command line of somebody who has logged in."""
        return self._finished(*arguments, **env)

    def told(self, *arguments: str) -> Any:
        """What a command that goes well prints as JSON."""
        done = self._finished(*arguments, "-o", "json")
        assert done.code == 0, done.out + done.err
        return json.loads(done.out)

    def started(self, *arguments: str) -> subprocess.Popen[str]:
        """A command line that goes on beside the test."""
        return subprocess.Popen(
            [sys.executable, "-m", "rlhf_cluster.cli", *arguments],
            env=self._env(PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _finished(self, *arguments: str, **env: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "rlhf_cluster.cli", *arguments],
            env=self._env(**env),
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def _env(self, **more: str) -> dict[str, str]:
        known = (self.data_dir / "server.json").is_file()
        server = {"RLHF_SERVER": self.server()["url"], "RLHF_TOKEN": self.server()["token"]} if known else {}
        return {**os.environ, "RLHF_CLUSTER_HOME": str(self.home), **server, **more}

    def server(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "server.json").read_text())

    def state(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "up.json").read_text())

    def http(self) -> httpx.Client:
        server = self.server()
        headers = {"Authorization": f"Bearer {server['token']}"}
        return httpx.Client(base_url=f"{server['url']}/api/v1", headers=headers, timeout=30, trust_env=False)

    def get(self, path: str, **query: Any) -> Any:
        with self.http() as http:
            answer = http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, *overrides: str, name: str | None = None) -> str:
        body = {"recipe": "word-world", "overrides": [*TINY, *overrides]} | ({"name": name} if name else {})
        with self.http() as http:
            answer = http.post("/jobs", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["job_id"]

    def job(self, job_id: str) -> dict[str, Any]:
        return self.get(f"/jobs/{job_id}")

    def wait_for(self, job_id: str, is_there: Callable[[dict[str, Any]], bool], name: str = "it") -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if is_there(job) else None

        return wait(look, f"{name}, of {self.job(job_id)},")

    def end_of(self, job_id: str) -> dict[str, Any]:
        return self.wait_for(job_id, lambda job: job["state"] in OVER, "its end")

    def events(self, job_id: str, *kinds: str) -> list[dict[str, Any]]:
        """Oldest first, from the database itself, so that a service that is gone hides nothing."""
        with closing(self._database()) as database:
            rows = database.execute("SELECT * FROM events WHERE job_id = ? ORDER BY event_id", [job_id]).fetchall()
        found = [dict(row) | {"body": json.loads(row["body"])} for row in rows]
        return [event for event in found if not kinds or event["kind"] in kinds]

    def metric_rows(self, job_id: str) -> list[tuple[str, int, float | None]]:
        """As they lie in the database: a row that was written twice is there twice."""
        query = "SELECT key, step, value FROM metrics JOIN metric_keys USING (key_id) WHERE job_id = ?"
        with closing(self._database()) as database:
            return [(row["key"], row["step"], row["value"]) for row in database.execute(query, [job_id])]

    def _database(self) -> sqlite3.Connection:
        database = sqlite3.connect(f"file:{self.data_dir / 'service.db'}?mode=ro", uri=True, timeout=30)
        database.row_factory = sqlite3.Row
        return database

    def job_dir(self, job_id: str) -> Path:
        return self.data_dir / "jobs" / job_id

    def journal(self, job_id: str) -> list[dict[str, Any]]:
        return list(journal.read(self.job_dir(job_id)))

    def journal_rows(self, job_id: str) -> Rows:
        """What the driver has measured, as it wrote it down itself."""
        measured = [entry for entry in self.journal(job_id) if entry["event"] in ("StepDone", "Evaluated")]
        return {(key, entry["step"]): value for entry in measured for key, value in entry["metrics"].items()}

    def relay(self, job_id: str, attempt: int) -> psutil.Process:
        """The process that Ray runs for an attempt."""
        query = "SELECT process_id FROM attempts WHERE job_id = ? AND number = ?"
        with closing(self._database()) as database:
            [row] = database.execute(query, [job_id, attempt])
        return psutil.Process(row["process_id"])

    def driver(self, job_id: str, attempt: int) -> psutil.Process:
        [driver] = self.relay(job_id, attempt).children()
        return driver

    def processes(self) -> list[psutil.Process]:
        """The server, Ray, and all that they have started."""
        roots = [
            psutil.Process(each["process_id"]) for each in (self.state()["server"], self.state()["ray"]["process"])
        ]
        return [process for root in roots for process in (root, *root.children(recursive=True))]
