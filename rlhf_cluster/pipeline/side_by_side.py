"""The seeds of a pipeline side by side: each is run by a process of its own, as it would be alone.

What they print goes into a log beside their stages; lines that say which stage begins are passed on. Ctrl-C and SIGTERM
reach all of them, and kill -9 of this process ends them too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from rlhf_cluster.pipeline.child import passed_on

STAGE_LINE = "== "
INTERRUPTED = 130


def run_side_by_side(
    commands: Sequence[Sequence[str]], logs: Sequence[Path], *, num_at_once: int, tell: Callable[[str], None]
) -> list[int]:
    """The exit code of each of `commands`, arguments of `rlhf`. The first that fails keeps those after it from
    beginning, which counts as 130; those under way go on. To be called from the main thread."""
    codes = [INTERRUPTED] * len(commands)
    waiting = list(range(len(commands)))
    running: dict[int, subprocess.Popen[str]] = {}
    ended: SimpleQueue[int] = SimpleQueue()

    def send(number: int) -> None:
        for child in list(running.values()):
            child.send_signal(number)

    with passed_on(send):
        while running or waiting:
            while waiting and len(running) < num_at_once:
                number = waiting.pop(0)
                running[number] = _start(commands[number])
                stream = running[number].stdout
                assert stream is not None, "it is piped"
                threading.Thread(target=_copy, args=(stream, logs[number], tell, ended, number), daemon=True).start()
            number = ended.get()
            codes[number] = running.pop(number).wait()
            if codes[number]:
                waiting.clear()
    return codes


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    rlhf = [sys.executable, "-m", "rlhf_cluster.cli", *command]
    return subprocess.Popen(
        [sys.executable, "-m", "rlhf_cluster.tied", str(os.getpid()), *rlhf],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _copy(stream: IO[str], log: Path, tell: Callable[[str], None], ended: SimpleQueue[int], number: int) -> None:
    """Until the process has closed its end, which it does when it ends."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            for line in stream:
                file.write(line)
                file.flush()
                if line.startswith(STAGE_LINE):
                    tell(line.rstrip("\n"))
    finally:
        ended.put(number)
