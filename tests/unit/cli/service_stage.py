"""A real service on a free port, and a stand-in for the drivers of its jobs, which tell and answer as relays do."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from rlhf_cluster.records.members import JobView, MemberView, PoolView
from rlhf_cluster.service.app import create_app
from rlhf_cluster.service.asking import answered
from rlhf_cluster.service.ingest import take_in
from rlhf_cluster.service.serve import listen
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import attempts, commands, events, jobs, samples, tokens
from rlhf_cluster.wire.relay import Ingest, LogLine

QUICK = ("rollout.engine.type=scripted", "train.num_steps=20")
LEASE_S = 3600.0


class ServiceStage:
    """Nothing of Ray: jobs stay where the stage puts them."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._settings = ServiceSettings(data_dir=data_dir, port=1, reconcile_every_s=600, max_upload_bytes=100_000)
        self._stopped = threading.Event()
        self.url = ""
        self.start()
        self.tokens = {scope: self._new_token(scope) for scope in ("read", "submit", "admin")}

    def start(self) -> None:
        """Also again, after `stop`, at the same address."""
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        listener = listen("127.0.0.1", port)
        self._app = create_app(self._settings.model_copy(update={"port": listener.getsockname()[1]}))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(self._app, log_config=None, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        deadline_s = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(60)

    @property
    def db(self) -> Any:
        return self._app.state.service.db

    def _new_token(self, scope: str) -> str:
        with self.db.writing() as connection:
            return tokens.add(connection, name=f"{scope}er", scopes=[scope], now_s=time.time())[1]

    def submit(self, name: str, *overrides: str, **fields: Any) -> str:
        """The id of a job that waits for its first attempt."""
        body = {"recipe": "word-world", "overrides": [*QUICK, *overrides], "name": name, **fields}
        headers = {"Authorization": f"Bearer {self.tokens['submit']}"}
        answer = httpx.post(f"{self.url}/api/v1/jobs", json=body, headers=headers, timeout=60, trust_env=False)
        assert answer.status_code == 201, answer.text
        return answer.json()["job_id"]

    def run(self, job_id: str, **view: Any) -> str:
        """As when its driver has registered and told its view."""
        now_s = time.time()
        with self.db.writing() as connection:
            attempts.add(connection, job_id, 1, submission_id=f"{job_id}-1", now_s=now_s)
            attempts.register(connection, job_id, 1, host="node-a", process_id=7, lease_until_s=now_s + LEASE_S)
            jobs.set_state(connection, job_id, "running", message="", now_s=now_s)
        self.tell(job_id, view=view_of(**view))
        return job_id

    def tell(
        self,
        job_id: str,
        entries: Sequence[dict[str, Any]] = (),
        *,
        view: dict[str, Any] | None = None,
        lines: Sequence[LogLine] = (),
    ) -> None:
        """As the relay of its first attempt."""
        with self.db.writing() as connection:
            attempt = attempts.newest(connection, job_id)
            first = jobs.get(connection, job_id).num_entries
            news = Ingest(first_entry=first, entries=list(entries), view=view, lines=list(lines))
            take_in(connection, attempt, news, now_s=time.time(), lease_s=LEASE_S)

    def tell_steps(self, job_id: str, steps: Sequence[int]) -> None:
        self.tell(job_id, [step_done(step) for step in steps], view=view_of(step=max(steps)))

    def write(self, job_id: str, component: str, *texts: str, offset: int = 0) -> None:
        """Lines of a log."""
        now_s = time.time()
        lines = [
            LogLine(component=component, offset=offset + number, line=text, time_s=now_s)
            for number, text in enumerate(texts)
        ]
        self.tell(job_id, lines=lines)

    def sample(self, job_id: str, step: int, *rows: tuple[str, str, float]) -> None:
        """Prompt, completion and reward of each."""
        table = [
            {
                "step": step,
                "prompt_id": f"p{number}",
                "prompt": prompt,
                "completion": completion,
                "reward": reward,
                "reward/fake": reward / 2,
                "length": 3,
            }
            for number, (prompt, completion, reward) in enumerate(rows)
        ]
        with self.db.writing() as connection:
            samples.add_file(connection, job_id, f"step-{step:06d}.parquet", table, keep=100)

    def end(self, job_id: str, state: str = "succeeded", message: str = "") -> None:
        """As the reconciler does."""
        now_s = time.time()
        with self.db.writing() as connection:
            jobs.set_state(connection, job_id, state, message=message, now_s=now_s)
            fields = {"topic": "jobs", "job_id": job_id, "time_s": now_s, "step": 0, "kind": "JobOver"}
            events.add(connection, **fields, text=f"{state}: {message}", body={"state": state})

    @contextlib.contextmanager
    def driver(self, job_id: str, *, says: str = "done", ok: bool = True) -> Iterator[list[dict[str, Any]]]:
        """It answers every command to the job; the commands that it has had."""
        had: list[dict[str, Any]] = []
        stop = threading.Event()

        def serve() -> None:
            while not stop.wait(0.02):
                with self.db.writing() as connection:
                    for row in commands.waiting(connection, job_id, now_s=time.time()):
                        answered(connection, row, ok=ok, text=says, now_s=time.time())
                        had.append(row.body)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield had
        finally:
            stop.set()
            thread.join(30)


def step_done(step: int) -> dict[str, Any]:
    metrics = {"reward/mean": step / 10, "learner/kl": 0.01 * step}
    return {"event": "StepDone", "time_s": 1000.0 + step, "step": step, "version": step, "metrics": metrics}


def view_of(**fields: Any) -> dict[str, Any]:
    """A `JobView` as JSON: two rollout workers of which one has no machine, and a learner."""
    shape = {"tokens_per_s": 120.0, "busy_share": 0.5, "rss_bytes": 3 * 2**29}
    members = (
        MemberView(role="rollout worker", worker_id="rollout-0", state="serving", version=4, **shape),
        MemberView(role="rollout worker", worker_id="rollout-1", state="pending", reason="no node has 1 CPU free"),
    )
    learner = (MemberView(role="learner", worker_id="learner-0", state="serving", version=5, **shape),)
    view = JobView(
        time_s=1.0,
        epoch=1,
        job_name="words",
        state="running",
        phase="updating",
        step=4,
        num_steps=20,
        num_in_flight=2,
        num_complete=1,
        waiting_for="1 more group",
        bottleneck="the learner waited for rollouts",
        pools=(
            PoolView(role="rollout worker", desired=2, num_restarts=1, last_error="rollout-7 died", members=members),
            PoolView(role="learner", desired=1, num_restarts=0, last_error="", members=learner),
        ),
    )
    return json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(view, **fields))))
