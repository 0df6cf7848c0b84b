"""`status.json` of a job directory: how the driver sees its job, written about once a second, read by `rlhf status`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from rlhf_cluster.driver.record_json import build, parse_object
from rlhf_cluster.driver.whole_file import read_small, write_whole
from rlhf_cluster.records.members import JobView

FILE_NAME = "status.json"


def write_view(job_dir: Path, view: JobView) -> None:
    """Raises `OSError` when the directory cannot be written."""
    write_whole(job_dir / FILE_NAME, json.dumps(dataclasses.asdict(view)) + "\n")


def read_view(job_dir: Path) -> JobView | None:
    """The newest view, or None where there is none that can be read."""
    try:
        return build(JobView, parse_object(read_small(job_dir / FILE_NAME)), extra=True)
    except (OSError, ValueError):
        return None


class StatusFile:
    def __init__(self, job_dir: Path) -> None:
        self._job_dir = job_dir

    async def keep(self, view: Callable[[], Awaitable[JobView]], *, every_s: float = 1.0) -> None:
        """Write a view every `every_s` until cancelled.

        consumes: `view`, which bounds its own waits; produces: `status.json`; waits for: time; unblocked by:
        cancellation. A disk that is full stops no job; readers see how old the view is. The last view, with the job's
        outcome, is for the caller to write once this is cancelled.
        """
        while True:
            newest = await view()
            with contextlib.suppress(OSError):
                await asyncio.to_thread(write_view, self._job_dir, newest)
            await asyncio.sleep(every_s)
