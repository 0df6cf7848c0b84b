"""What the service costs: rows taken in, events told to many, and how long answers take while fifty pages look on.

    python benchmarks/service.py [--pages 50] [--seconds 20]

A real service on a SQLite file, in a process of its own; relay and pages are this process, on the same machine. Times
are wall-clock and depend on what else runs: compare the numbers of one run with each other. A page is one event stream
and, for every step of the job, the requests with which the real page follows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rlhf_cluster.service.store import attempts
from rlhf_cluster.service.store.database import Database

API = "/api/v1"
START_S = 60.0
NUM_METRICS = 40
ENTRIES = 50
"""Steps in one message of the relay that catches up."""
REQUESTS = ("", "/pools", "/metrics", "/metrics/series?key=reward/mean&key=learner/kl&after_step=1", "/events?limit=30")
"""Of a page, after the path of its job, when a step is done."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two measurements of pages")
    parser.add_argument("--step-s", type=float, default=2.0, help="between two steps of the job that pages look at")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlhf-bench-") as directory, served(Path(directory)) as service:
        relay = Relay(service)
        print(f"ingest            {ingest(relay):>10.0f} metric rows/s, {ENTRIES} steps of {NUM_METRICS} a message")
        rate, late_s = asyncio.run(told(relay, num_streams=arguments.pages))
        print(f"events            {rate:>10.0f} events/s to each of {arguments.pages} streams at once")
        print(
            f"event to client   {late_s[0] * 1000:>10.0f} ms median, {late_s[1] * 1000:.0f} ms p99, one event at a time"
        )
        idle_s = asyncio.run(looked_at(relay, num_pages=1, seconds=arguments.seconds, step_s=arguments.step_s))
        busy_s = asyncio.run(
            looked_at(relay, num_pages=arguments.pages, seconds=arguments.seconds, step_s=arguments.step_s)
        )
        print(table(idle_s, busy_s, num_pages=arguments.pages))
        print(f"page load         {page_bytes(service)}")


def table(idle_s: list[float], busy_s: list[float], *, num_pages: int) -> str:
    """Times of requests with one page and with many, and how they compare."""
    rows = [f"{'GETs, ms':<18}{'one page':>10}{f'{num_pages} pages':>10}{'ratio':>8}"]
    for name, share in (("median", 0.5), ("p99", 0.99)):
        one, many = quantile(idle_s, share) * 1000, quantile(busy_s, share) * 1000
        rows.append(f"{name:<18}{one:>10.1f}{many:>10.1f}{many / one:>8.1f}")
    rows.append(f"{'requests':<18}{len(idle_s):>10}{len(busy_s):>10}")
    rows.append(f"load of the machine, over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return "\n".join(rows)


@dataclass
class Service:
    url: str
    token: str
    data_dir: Path

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@contextmanager
def served(directory: Path) -> Iterator[Service]:
    data_dir, log = directory / "data", directory / "log"
    command = (sys.executable, "-m", "rlhf_cluster.cli", "serve", "--data-dir", str(data_dir), "--port", "0")
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file)
    try:
        deadline_s = time.monotonic() + START_S
        while not (found := re.search(r"serving (http://[^\"\s]+)", log.read_text())) or not answers(found[1]):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the service did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield Service(found[1], (data_dir / "admin.token").read_text().strip(), data_dir)
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.ConnectError:
        return False


@dataclass
class Relay:
    """Of a job that no cluster runs; its attempt is written into the service's database."""

    service: Service
    job_id: str = ""
    num_entries: int = 0
    step: int = 0
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        body = {"recipe": "word-world", "overrides": ["train.num_steps=1000000"]}
        answer = httpx.post(f"{self.service.url}{API}/jobs", json=body, headers=self.service.headers(), trust_env=False)
        self.job_id = answer.raise_for_status().json()["job_id"]
        db = Database(f"sqlite:///{self.service.data_dir / 'service.db'}")
        with db.writing() as connection:
            _, secret = attempts.add(connection, self.job_id, 1, submission_id="bench", now_s=time.time())
        db.close()
        self.client = httpx.Client(
            base_url=f"{self.service.url}{API}/relay",
            headers={"Authorization": f"Bearer {secret}"},
            timeout=60,
            trust_env=False,
        )
        self.client.post("/register", json={"host": "bench", "process_id": 1}).raise_for_status()

    def send(self, entries: list[dict[str, Any]]) -> None:
        body = {"first_entry": self.num_entries, "entries": entries}
        answer = self.client.post("/ingest", json=body).raise_for_status()
        self.num_entries = answer.json()["num_entries"]

    def steps(self, num: int) -> list[dict[str, Any]]:
        first, self.step = self.step, self.step + num
        names = ["reward/mean", "learner/kl", *(f"bench/metric_{index}" for index in range(NUM_METRICS - 2))]
        return [
            {
                "event": "StepDone",
                "time_s": time.time(),
                "step": step,
                "version": step,
                "metrics": dict.fromkeys(names, step / 7),
            }
            for step in range(first, first + num)
        ]


def ingest(relay: Relay, *, num_messages: int = 40) -> float:
    """Metric rows a second, by one relay that catches up."""
    relay.send(relay.steps(ENTRIES))
    begun_s = time.monotonic()
    for _ in range(num_messages):
        relay.send(relay.steps(ENTRIES))
    return num_messages * ENTRIES * NUM_METRICS / (time.monotonic() - begun_s)


async def told(relay: Relay, *, num_streams: int, num_events: int = 1000) -> tuple[float, tuple[float, float]]:
    """Events a second to each stream, with all at work, and the median and p99 of the time to a client."""
    path = f"{API}/events/stream"
    async with pages_client(relay.service, num_streams) as client:
        ready = asyncio.Semaphore(0)
        until = relay.num_entries + num_events

        async def read() -> None:
            num_seen = 0
            async for event in events_of(client, path, {"job_id": relay.job_id, "topics": "jobs"}, ready):
                num_seen += event is not None
                if num_seen == num_events:
                    return

        readers = [asyncio.create_task(read()) for _ in range(num_streams)]
        for _ in readers:
            await ready.acquire()
        begun_s = time.monotonic()
        while relay.num_entries < until:
            notices = [{"event": "Notice", "time_s": time.time(), "step": 0, "text": "bench"}] * 100
            await asyncio.to_thread(relay.send, notices)
        await asyncio.gather(*readers)
        rate = num_events / (time.monotonic() - begun_s)
        late_s = []
        ready = asyncio.Semaphore(0)
        one_by_one = events_of(client, path, {"job_id": relay.job_id, "topics": "jobs"}, ready)
        first = asyncio.ensure_future(anext(one_by_one))
        await ready.acquire()
        for _ in range(30):
            await asyncio.sleep(random.random() / 2)  # anywhere between two looks of the hub
            await asyncio.to_thread(
                relay.send, [{"event": "Notice", "time_s": time.time(), "step": 0, "text": "bench"}]
            )
            event = await first
            late_s.append(time.time() - event["time_s"])
            first = asyncio.ensure_future(anext(one_by_one))
        first.cancel()
        return rate, (statistics.median(late_s), quantile(late_s, 0.99))


async def looked_at(relay: Relay, *, num_pages: int, seconds: float, step_s: float) -> list[float]:
    """How long each request of the pages took, while the job does a step now and then."""
    times_s: list[float] = []
    pages = [Page(relay, times_s) for _ in range(num_pages)]
    running = [asyncio.create_task(page.run()) for page in pages]
    for page in pages:
        await page.is_open.wait()
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        await asyncio.to_thread(relay.send, relay.steps(1))
        await asyncio.sleep(step_s)
    for each in running:
        each.cancel()
    for outcome in await asyncio.gather(*running, return_exceptions=True):
        if not isinstance(outcome, asyncio.CancelledError):
            raise RuntimeError("a page ended by itself") from outcome
    return times_s


class Page:
    """One stream, and a connection for each of the requests that follow its news, as a browser has them.

    By hand over sockets: a whole HTTP client costs more than the service does, and would be what is measured.
    """

    def __init__(self, relay: Relay, times_s: list[float]) -> None:
        self.is_open = asyncio.Event()
        self._relay = relay
        self._times_s = times_s

    async def run(self) -> None:
        path = f"{API}/jobs/{self._relay.job_id}"
        connections = [await self._connect() for _ in REQUESTS]
        stream, _ = stream_connection = await self._connect()
        await self._send(stream_connection, f"{API}/events/stream?job_id={self._relay.job_id}")
        await stream.readuntil(b"retry:")
        self.is_open.set()
        news = asyncio.create_task(stream.readuntil(b"id: "))
        while True:
            await news
            await asyncio.sleep(0.4)  # the page waits so long for more news before it asks
            news = asyncio.create_task(stream.readuntil(b"id: "))
            await asyncio.gather(
                *(self._ask(each, f"{path}{request}") for each, request in zip(connections, REQUESTS, strict=True))
            )

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = httpx.URL(self._relay.service.url)
        return await asyncio.open_connection(url.host, url.port)

    async def _send(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str) -> None:
        token = self._relay.service.token
        connection[1].write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        await connection[1].drain()

    async def _ask(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str) -> None:
        begun_s = time.monotonic()
        await self._send(connection, path)
        head = (await connection[0].readuntil(b"\r\n\r\n")).decode().lower()
        if not head.startswith("http/1.1 200"):
            raise RuntimeError(f"{path} was answered {head.splitlines()[0]}")
        await connection[0].readexactly(int(head.partition("content-length: ")[2].split("\r\n")[0]))
        self._times_s.append(time.monotonic() - begun_s)


def pages_client(service: Service, num_connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=num_connections + 8, max_keepalive_connections=num_connections + 8)
    return httpx.AsyncClient(
        base_url=service.url, headers=service.headers(), limits=limits, timeout=60, trust_env=False
    )


async def events_of(client: httpx.AsyncClient, path: str, params: dict[str, str], ready: asyncio.Semaphore):
    async with client.stream("GET", path, params=params) as response:
        response.raise_for_status()
        left = b""
        async for piece in response.aiter_bytes():
            if not left and piece.startswith(b"retry:"):
                ready.release()
            *blocks, left = (left + piece).split(b"\n\n")
            for block in blocks:
                name, _, data = block.partition(b"data: ")
                if data and b"id: " in name:
                    yield json.loads(data)


def page_bytes(service: Service) -> str:
    """Of `index.html` and all that it names, packed as a browser takes them."""
    with httpx.Client(base_url=service.url, headers={"Accept-Encoding": "gzip"}, trust_env=False) as client:
        index = client.get("/")
        files = sorted(set(re.findall(r'(?:src|href)="\.?/?(assets/[^"]+)"', index.text)))
        if not files:
            return "not measured: the page was not built"
        total = sum(client.get(f"/{file}").num_bytes_downloaded for file in files) + index.num_bytes_downloaded
        return f"{total} bytes in {len(files) + 1} files"


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    main()
