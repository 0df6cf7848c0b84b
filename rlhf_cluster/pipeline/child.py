"""A stage's job in a process of its own: torch, vLLM and Ray start clean for each, and none outlives the pipeline.

Loading torch and transformers takes longer than a short stage trains. So this process loads them once, without using
them, and each stage's process is a fork of it.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import IO, Any

from rlhf_cluster.tied import tie_to_parent

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FORKS = sys.platform == "linux"
"""Elsewhere libraries that a job needs do not survive a fork; there each stage loads them for itself."""
LOADED_BY_ALL = ("rlhf_cluster.driver.run", "rlhf_cluster.learner.role")
"""Neither vLLM nor Ray: they start threads and read their environment when they are loaded."""


def run_in_child(main: Callable[[], int], *, stdout: IO[Any] | None = None) -> int:
    """`main` in a process of its own; the exit code is what it returns, or -N when signal N ended it.

    Its output goes where ours goes, or to `stdout`. Ctrl-C and SIGTERM are passed on; kill -9 of this process ends it
    too. To be called from the main thread, while there is no other.
    """
    if FORKS:
        _load_what_all_load()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # or both would print what is still in its buffer
    context = multiprocessing.get_context("fork" if FORKS else "spawn")
    child = context.Process(target=_become, args=(main, os.getpid(), stdout.fileno() if stdout else None))
    child.start()
    process_id = child.pid
    assert process_id is not None, "it has been started"

    def send(number: int) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process_id, number)

    with passed_on(send):
        child.join()
    assert child.exitcode is not None, "it has been waited for"
    return child.exitcode


def _become(main: Callable[[], int], parent: int, stdout_fd: int | None) -> None:
    os.setsid()  # the terminal's Ctrl-C reaches it once, through us
    tie_to_parent(parent)
    if stdout_fd is not None:
        os.dup2(stdout_fd, 1)
    sys.exit(main())


@functools.cache
def _load_what_all_load() -> None:
    # Otherwise a look for GPUs while it loads would keep every fork from using one.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    for module in LOADED_BY_ALL:
        importlib.import_module(module)


@contextmanager
def passed_on(send: Callable[[int], None]) -> Generator[None]:
    """Meanwhile `send` is called with the number of each Ctrl-C and SIGTERM, and neither ends us."""
    before = {number: signal.signal(number, lambda number, _: send(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
