"""Runs a job to its end, then once for every transition: killed there as kill -9 would, and resumed.

    python killed_driver.py JOB DIRECTORY FIRST [OVERRIDE ...]

Everything heavy is imported once; each run is a forked process of its own that ends itself. Job directories are
`whole/` and `killed-<number>-<transition>/` below DIRECTORY. Transitions before the FIRST, counted from 1, are passed
over.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from pathlib import Path

from rlhf_cluster.config.load import load_job, read_job
from rlhf_cluster.driver.observers.build import JobObservers
from rlhf_cluster.driver.run import run_job

KILLED = 9


def main(job: str, directory: Path, first: int, overrides: list[str]) -> None:
    import transformers.models.llama.modeling_llama  # noqa: F401  what every run needs and takes seconds to import

    whole = directory / "whole"
    note = directory / "transitions"
    assert in_a_fork(job, whole, overrides, note=note) == 0
    for number, transition in list(enumerate(note.read_text().split(), start=1))[first - 1 :]:
        killed = directory / f"killed-{number}-{transition}"
        assert in_a_fork(job, killed, overrides, kill_at=number) == KILLED
        assert in_a_fork(job, killed, overrides) == 0, f"{killed} was not resumed"


def in_a_fork(job: str, runs: Path, overrides: list[str], *, kill_at: int = 0, note: Path | None = None) -> int:
    process_id = os.fork()
    if process_id == 0:
        code = 1
        try:
            run(job, runs, overrides, kill_at=kill_at, note=note)
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1])


def run(job: str, runs: Path, overrides: list[str], *, kill_at: int, note: Path | None) -> None:
    seen: list[str] = []

    def at(transition: str) -> None:
        seen.append(transition)
        if len(seen) == kill_at:
            # No `finally`, no flush: what is not in the operating system by now is lost.
            os._exit(KILLED)

    job_dir = next(runs.glob("*"), None)
    config = read_job(job_dir) if job_dir else load_job(job, [*overrides, f"output_dir={runs}"])
    observers = JobObservers(config.observers)
    asyncio.run(run_job(config, observers=observers, stop=asyncio.Event(), job_dir=job_dir, at=at))
    observers.close()
    if note:
        note.write_text(" ".join(seen))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
