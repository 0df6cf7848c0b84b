"""What the job's directory has that is new, sent on until the service has it all: entries, logs, samples, the view."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rlhf_cluster.driver.claim import current_driver
from rlhf_cluster.driver.observers.journal import FILE_NAME
from rlhf_cluster.driver.status_file import read_view
from rlhf_cluster.relay.link import Link, Refused, Unreachable
from rlhf_cluster.relay.spool import JournalSpool, LogSpool, SampleSpool
from rlhf_cluster.wire.relay import MAX_ENTRIES, MAX_LINES, Ingest, Registered

EVERY_S = 1.0
"""Between two messages while nothing is new; each renews the lease."""
MAX_BYTES = 400 * 1024
"""Of journal, and of logs, in one message: together below the megabyte that proxies let through unasked. A single entry
may be larger."""
FOR_THE_LEDGER_ONLY = "groups"
"""A step's entry lists every group; the service keeps the figures, and the samples come as files."""

SAMPLES_S = 20.0
"""For sample files after a driver's end, of which nobody hears before: what is left stays in the job's directory."""
OUTCOMES = ("succeeded", "failed", "interrupted")

log = logging.getLogger(__name__)


class Shipping:
    """Goes on where the service says it is. Make it before the driver starts: what lies there then is older."""

    def __init__(self, job_dir: Path, link: Link, registered: Registered) -> None:
        self._job_dir = job_dir
        self._link = link
        self._began_s = time.time()
        driver = current_driver(job_dir)
        self._former_epoch = driver.epoch if driver else 0
        self._journal = JournalSpool(job_dir / FILE_NAME, num_entries=registered.num_entries)
        self._logs = LogSpool(job_dir / "logs", newest=registered.log_offsets)
        self._samples = SampleSpool(job_dir / "samples", names=registered.sample_files)
        self.said: dict[str, Any] = {}
        """Outcome and message of the driver's last event; empty while it has left none."""
        self.has_ended = asyncio.Event()
        """The driver has left its last event."""

    async def run(self) -> None:
        """consumes: journal, logs and view; produces: what the service has, and the lease; waits for: the service and
        time; unblocked by: cancellation. Raises `Superseded` when another attempt has the job."""
        await self._repeat(self.once)

    async def run_samples(self) -> None:
        """consumes: sample files; otherwise as `run`. Beside it: a large file may take longer than the lease lasts."""
        await self._repeat(self._send_samples)

    async def _repeat(self, send: Callable[[], Awaitable[bool]]) -> None:
        while True:
            try:
                has_more = await send()
            except (Unreachable, OSError) as error:  # a disk that cannot be read now is no end of a job that runs
                log.warning("%s; what is new waits on disk", error)
                has_more = False
            if not has_more:
                await asyncio.sleep(EVERY_S)

    async def drain(self, *, samples_s: float = SAMPLES_S) -> None:
        """Send all that is left of a driver that has ended, and of the samples what can be sent within `samples_s`:
        how the job has ended does not depend on them. Raises `Unreachable`, `Superseded`."""
        while await self.once(is_final=True):
            pass
        with contextlib.suppress(TimeoutError, Unreachable, OSError):
            async with asyncio.timeout(samples_s):
                while await self._send_samples():
                    pass
        if self._samples.next():
            log.warning("not all samples could be sent within %g s; the others are in %s", samples_s, self._job_dir)

    async def once(self, *, is_final: bool = False) -> bool:
        """Send some of what is new; returns whether there is more."""
        entries = self._journal.read(max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES)
        lines = self._logs.read(max_lines=MAX_LINES, max_bytes=MAX_BYTES, now_s=time.time(), is_final=is_final)
        first = self._journal.number
        news = Ingest(
            first_entry=first,
            entries=[{key: entry[key] for key in entry if key != FOR_THE_LEDGER_ONLY} for entry in entries],
            view=self._view(),
            lines=lines,
        )
        num_taken = (await self._link.ingest(news)).num_entries - first
        self._note_end(entries[: max(0, num_taken)])
        self._journal.go_to(first + num_taken)
        self._logs.taken(lines)
        is_behind = num_taken < len(entries)
        return self._journal.is_full or self._logs.is_full or is_behind

    async def _send_samples(self) -> bool:
        """The next file; whether there may be more."""
        path = self._samples.next()
        if path is None:
            return False
        with contextlib.suppress(FileNotFoundError):
            try:
                await self._link.samples(path.name, await asyncio.to_thread(path.read_bytes))
            except Refused as error:
                log.warning("%s stays in the job's directory only: %s", path.name, error)
        self._samples.done(path)
        return True

    def _view(self) -> dict[str, Any] | None:
        """None where the newest is that of a former driver."""
        view = read_view(self._job_dir)
        return dataclasses.asdict(view) if view and view.epoch > self._former_epoch else None

    def _note_end(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            time_s = entry.get("time_s")
            is_new = isinstance(time_s, int | float) and time_s >= self._began_s
            if entry["event"] == "JobEnded" and is_new and entry.get("outcome") in OUTCOMES:
                self.said = {"outcome": entry["outcome"], "message": str(entry.get("message", ""))}
                self.has_ended.set()
