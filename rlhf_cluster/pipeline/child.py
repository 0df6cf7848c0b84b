"""A stage's job in a process of its own: torch, vLLM and Ray start clean for each, and none outlives the pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_in_child(job_dir: Path, *, stdout: IO[Any] | None = None, take_over: bool = False) -> int:
    """`rlhf resume` of the job directory, which also begins one that has not run; returns its exit code.

    Its output goes where ours goes, or to `stdout`. Ctrl-C and SIGTERM are passed on, so that it stops after the step
    under way with a checkpoint; kill -9 of this process ends it too. To be called from the main thread.
    """
    resume = [sys.executable, "-m", "rlhf_cluster.cli", "resume", str(job_dir), *["--take-over"] * take_over]
    # A session of its own: the terminal's Ctrl-C reaches it once, through us.
    child = subprocess.Popen(
        [sys.executable, "-m", "rlhf_cluster.tied", str(os.getpid()), *resume], stdout=stdout, start_new_session=True
    )
    with _passed_on(child):
        return child.wait()


@contextmanager
def _passed_on(child: subprocess.Popen[bytes]) -> Generator[None]:
    before = {number: signal.signal(number, lambda number, _: child.send_signal(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
