"""The real service on a real socket, in a thread, and a reader of its event streams."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from rlhf_cluster.service.app import create_app
from rlhf_cluster.service.serve import Server, listen
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import events, jobs, tokens
from rlhf_cluster.service.store.database import Database

BOUND_S = 60.0
STREAM = "/api/v1/events/stream"
TOPICS = ("jobs", "metrics", "workers", "logs")
LAST = "Last"
"""The kind of the event after which there is none."""


@dataclass
class Live:
    url: str
    db: Database
    server: Server
    thread: threading.Thread
    headers: dict[str, str] = field(default_factory=dict)

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers | headers, timeout=BOUND_S, trust_env=False)

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(BOUND_S)
        assert not self.thread.is_alive()


@contextmanager
def served(data_dir: Path, **settings: Any) -> Iterator[Live]:
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    app = create_app(ServiceSettings(data_dir=data_dir, port=port, **settings))
    db = app.state.service.db
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=20)
    server = Server(config, app.state.service.hub)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    with db.writing() as connection:
        _, secret = tokens.add(connection, name="reader", scopes=["read"], now_s=time.time())
    thread.start()
    live = Live(f"http://127.0.0.1:{port}", db, server, thread, {"Authorization": f"Bearer {secret}"})
    try:
        deadline_s = time.monotonic() + BOUND_S
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        yield live
    finally:
        live.end()


def new_job(db: Database, name: str = "a-job") -> str:
    with db.writing() as connection:
        row = jobs.add(
            connection,
            name=name,
            owner="ada",
            labels={},
            notes="",
            source="",
            config={},
            num_steps=9,
            max_attempts=3,
            bundle_sha256=None,
            now_s=time.time(),
        )
        jobs.set_state(connection, row.job_id, "running", message="", now_s=time.time())
    return row.job_id


def tell(db: Database, job_id: str, *, topic: str = "jobs", kind: str = "Notice", num: int = 1) -> list[int]:
    """Events in one transaction; their ids."""
    with db.writing() as connection:
        return [
            events.add(
                connection,
                topic=topic,
                job_id=job_id,
                time_s=time.time(),
                step=0,
                kind=kind,
                text="two\nlines\u2028or three",
                body={"num": each},
            )
            for each in range(num)
        ]


def tell_much(db: Database, job_ids: list[str], *, num: int, chance: random.Random) -> list[tuple[int, str, str]]:
    """Events of all topics, in transactions of all sizes, at last one of each topic and job: (id, topic, job)."""
    told: list[tuple[int, str, str]] = []
    while len(told) < num:
        job_id, topic = chance.choice(job_ids), chance.choice(TOPICS)
        told += [(each, topic, job_id) for each in tell(db, job_id, topic=topic, num=chance.choice((1, 1, 2, 7)))]
        time.sleep(chance.choice((0.0, 0.0, 0.001, 0.02)))
    for job_id in job_ids:
        for topic in TOPICS:
            told += [(each, topic, job_id) for each in tell(db, job_id, topic=topic, kind=LAST)]
    return told


@dataclass(frozen=True)
class Message:
    """One of a stream; what it has not is empty."""

    event: str = ""
    id: str = ""
    data: Any = None
    comment: str = ""
    retry: str = ""


def parsed(block: bytes) -> Message:
    fields: dict[str, str] = {}
    for line in block.decode("ascii").split("\n"):
        name, _, value = line.partition(":")
        fields[name or "comment"] = value.removeprefix(" ")
    data = fields.pop("data", None)
    return Message(data=None if data is None else json.loads(data), **fields)


def messages(response: httpx.Response) -> Iterator[Message]:
    left = b""
    for piece in response.iter_bytes():
        *blocks, left = (left + piece).split(b"\n\n")
        yield from map(parsed, blocks)


async def messages_of(response: httpx.Response) -> AsyncIterator[Message]:
    left = b""
    async for piece in response.aiter_bytes():
        *blocks, left = (left + piece).split(b"\n\n")
        for block in blocks:
            yield parsed(block)
