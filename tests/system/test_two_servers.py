"""Two API servers on one PostgreSQL: one runs the jobs, both tell of them; when one is killed the other takes over."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rlhf_cluster.client import Client
from rlhf_cluster.errors import ServiceAway
from rlhf_cluster.service.private_ray import PrivateRay, free_ports, start_private_ray
from rlhf_cluster.service.processes import Started, start
from rlhf_cluster.service.store import events
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.wire.jobs import Submit

from .up_service import BOUND_S, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
GRACE_S = 20
RAY_TOKEN = "b" * 64
LEADS = "this process now runs the jobs"
TOPICS = ("jobs", "metrics")
JOB = (
    "runtime=ray",
    "rollout.engine.type=transformers",
    "train.num_steps=25",
    "train.prompts_per_step=4",
    "algorithm.keep_zero_variance=true",
    "evaluation.num_prompts=1",
    'observers=["journal"]',
)


class ApiServer:
    """A `rlhf serve` that can be killed and begun again."""

    def __init__(self, data_dir: Path, *options: str, env: dict[str, str]) -> None:
        data_dir.mkdir()
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.log = data_dir / "server.log"
        self.token_file = data_dir / "admin.token"
        self._arguments = [sys.executable, "-m", "rlhf_cluster.cli", "serve", "--data-dir", str(data_dir)]
        self._arguments += ["--port", str(port), *options]
        self._env = env
        self.process: Started | None = None

    def begin(self) -> None:
        self.log.unlink(missing_ok=True)
        self.process, _ = start(self._arguments, env=self._env, log=self.log)
        wait(self._is_ready, f"a server that {self.log} tells of")

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.process_id, signal.SIGKILL)

    def end(self) -> None:
        if self.process is not None:
            self.process.end(grace_s=GRACE_S)

    def leads(self) -> bool:
        """Whether it has since it was begun."""
        return LEADS in self.log.read_text()

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


class Listener:
    """Ids of all events that a server's stream tells, heard in a thread that comes back when the server does, and ends
    a while after it has gone for good."""

    def __init__(self, url: str, token: str) -> None:
        self.heard: list[int] = []
        self.is_listening = threading.Event()
        threading.Thread(target=self._listen, args=(url, token), daemon=True).start()
        assert self.is_listening.wait(BOUND_S)

    def _listen(self, url: str, token: str) -> None:
        with contextlib.suppress(ServiceAway), Client.connect(url, token) as client:
            for message in client.stream(job_id=None, topics=TOPICS):
                self.is_listening.set()
                if message.topic in TOPICS and message.event_id:
                    self.heard.append(int(message.event_id))


@pytest.fixture(scope="module")
def ray(word_world_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRay]:
    log = tmp_path_factory.mktemp("ray") / "ray.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_CLUSTER_HOME", str(word_world_home))
        ray = start_private_ray(token=RAY_TOKEN, num_cpus=None, object_store_bytes=10**8, log=log)
    yield ray
    ray.end()


def test_the_servers_share_jobs_events_and_the_work(ray: PrivateRay, new_postgresql, word_world_home, tmp_path):
    database = new_postgresql()
    env = {**os.environ, "RLHF_CLUSTER_HOME": str(word_world_home), "RAY_AUTH_TOKEN": RAY_TOKEN}
    options = ("--database", database, "--ray-address", ray.url, "--jobs-dir", str(tmp_path / "jobs"))
    first, second = (ApiServer(tmp_path / name, *options, env=env) for name in ("first", "second"))
    with contextlib.ExitStack() as stack:
        for server in (first, second):
            stack.callback(server.end)
            server.begin()
        wait(first.leads, "the first server leading")
        assert not second.token_file.exists()
        token = first.token_file.read_text().strip()
        here, there = (stack.enter_context(Client.connect(server.url, token)) for server in (first, second))
        listeners = [Listener(server.url, token) for server in (first, second)]

        job_id = there.submit(Submit(recipe="word-world", overrides=list(JOB))).job_id
        wait(lambda: here.job(job_id).step >= 2, "two steps")
        assert not second.leads()

        first.kill()
        wait(second.leads, "the second server leading")
        first.begin()
        wait(lambda: there.job(job_id).state == "succeeded", "the end of the job")
        assert here.job(job_id).num_attempts == 1
        assert here.job(job_id).step == 25
        assert not first.leads()

        db = Database(database)
        stack.callback(db.close)
        with db.reading() as connection:
            told = [row.event_id for row in events.after(connection, 0, topics=TOPICS, limit=10_000)]
        wait(lambda: all(listener.heard == told for listener in listeners), "every event in both streams")
