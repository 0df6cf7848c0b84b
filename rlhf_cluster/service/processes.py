"""Processes that one command starts and another one ends: known by their id and the time at which they began, so that
nobody else's process is ever ended, whatever got its id since."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAME_S = 2.0
"""Two readings of one process's start differ by less."""
KILL_S = 10.0
REST = signal.SIGUSR1
"""To a server: begin no attempts any more. Who sends it ends the drivers, and then the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    process_id: int
    started_s: float

    def is_alive(self) -> bool:
        return self._process() is not None

    def _process(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.process_id)
            same = abs(process.create_time() - self.started_s) < SAME_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        return None

    def _number_was_given_away(self) -> bool:
        try:
            return abs(psutil.Process(self.process_id).create_time() - self.started_s) >= SAME_S
        except psutil.NoSuchProcess:
            return False

    def family(self) -> list[psutil.Process]:
        """It, all that descend from it, and all that are left of its session when it is gone."""
        root, found = self._process(), {}
        if root is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                found = {process.pid: process for process in (root, *root.children(recursive=True))}
        # While a session lives, no new process gets its number; and where one has it, that session is not ours.
        if not self._number_was_given_away():
            found |= {process.pid: process for process in psutil.process_iter() if _session(process) == self.process_id}
        return list(found.values())

    def send(self, number: signal.Signals) -> None:
        """Nothing where it has ended."""
        if (process := self._process()) is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def end(self, *, grace_s: float) -> bool:
        """Ask it to end, wait, and kill what is left of its family. False where nothing was alive."""
        family, root = self.family(), self._process()
        if root is not None:
            self.send(signal.SIGTERM)
            psutil.wait_procs(family, timeout=grace_s)
        for process in {*family, *self.family()}:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=KILL_S)
        return bool(family)


def start(arguments: Sequence[str], *, env: Mapping[str, str], log: Path) -> tuple[Started, subprocess.Popen[bytes]]:
    """In a session of its own, which a closed terminal does not end; what it writes goes to the end of `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            arguments,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return Started(process_id=process.pid, started_s=psutil.Process(process.pid).create_time()), process


def last_lines(log: Path, *, num_lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:])
    except FileNotFoundError:
        return ""


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None
