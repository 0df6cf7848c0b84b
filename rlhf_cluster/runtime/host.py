"""What runs in the process of an actor: the role, its log, and a watchdog that writes down where it is stuck.

Errors are classified here, because a type of another package does not survive the way to the driver: ours travel as
they are, running out of memory is a death, and anything else becomes a `RoleError` that says what and where.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import os
import sys
import traceback
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from rlhf_cluster.errors import RlhfError, RoleDied, RoleError
from rlhf_cluster.runtime.spec import RoleSpec

BLOCKED_S = 10.0
"""An event loop that does nothing for so long has its stacks written into the log."""
REARM_S = 1.0
NUM_TRACEBACK_LINES = 6
TAIL_BYTES = 64 * 1024


class RoleHost:
    """The actor. Builds the role on the first call and passes calls on to it."""

    def __init__(self, spec: RoleSpec, *, blocked_s: float = BLOCKED_S) -> None:
        self._spec = spec
        self._blocked_s = blocked_s
        self._log = _redirect_output(log_path(spec.log_dir, spec.worker_id)) if spec.log_dir else None
        """None where it cannot be written: a role does not die for its log."""
        self._watchdog: asyncio.Task[None] | None = None

    @cached_property
    def role(self) -> Any:
        """Built by the first call, whose caller gets what it raises as it is: a failing constructor of an actor would
        look like a death."""
        return self._spec.build()

    async def placed(self) -> None:
        """Answers as soon as there is a process."""
        self._watch()

    async def serving(self) -> None:
        """Answers never: whoever waits for it learns at once that this process is gone."""
        await asyncio.Event().wait()

    async def call(self, method: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        self._watch()
        try:
            return await getattr(self.role, method)(*arguments, **options)
        except RlhfError:
            raise
        except Exception as error:
            raise self._classified(error, method) from error

    async def stream(self, method: str, arguments: tuple[Any, ...]) -> Any:
        self._watch()
        try:
            async for message in getattr(self.role, method)(*arguments):
                yield message
        except RlhfError:
            raise
        except Exception as error:
            raise self._classified(error, method) from error

    async def stacks(self) -> str:
        """Where every Python thread is, as text; written into the log too, which the first line names."""
        where = f"; also in {log_path(self._spec.log_dir, self._spec.worker_id)}" if self._spec.log_dir else ""
        text = f"stacks of {self._spec.worker_id}, process {os.getpid()}{where}\n{_python_stacks()}"
        if self._log:
            self._log.write(text)
        return text

    def _classified(self, error: Exception, method: str) -> RoleError:
        spec = self._spec
        where = {"role": spec.role, "worker_id": spec.worker_id, "activity": method}
        what = f"{type(error).__name__}: {error}"
        # By name, because torch's own is a RuntimeError and most roles never import torch.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return RoleDied(f"{spec.role} {spec.worker_id} ran out of memory in {method}: {what}", **where)
        lines = [line for frame in traceback.format_tb(error.__traceback__) for line in frame.splitlines()]
        last = "\n".join(lines[-NUM_TRACEBACK_LINES:])
        return RoleError(f"{spec.role} {spec.worker_id} failed in {method}: {what}\n{last}", **where)

    def _watch(self) -> None:
        """Starts the watchdog with the first call: only then is the event loop of the actor known."""
        if self._log and self._watchdog is None:
            # At once, because the very call that starts it may be the one that blocks.
            faulthandler.dump_traceback_later(self._blocked_s, file=self._log)
            self._watchdog = asyncio.create_task(self._keep_watchdog_waiting(self._log))

    async def _keep_watchdog_waiting(self, log: IO[str]) -> None:
        """As long as this runs, the timer is set back; when it no longer does, a thread without need of the GIL writes
        the stacks, also of a process that a call into C holds."""
        while True:
            await asyncio.sleep(min(REARM_S, self._blocked_s / 4))
            faulthandler.dump_traceback_later(self._blocked_s, file=log)


def log_path(log_dir: Path, worker_id: str) -> Path:
    """The file that the output of a role's process goes to."""
    return log_dir / f"{worker_id}.log"


def last_log_lines(log_dir: Path | None, worker_id: str, n: int = 20) -> list[str]:
    """The end of a role's log; empty where it has none, or none that can be read from here."""
    if log_dir is None:
        return []
    try:
        with log_path(log_dir, worker_id).open("rb") as file:
            end = file.seek(0, io.SEEK_END)
            file.seek(max(0, end - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-n:]
    except OSError:
        return []


def _redirect_output(path: Path) -> IO[str] | None:
    """Everything that this process and its children print from now on, in Python or in C, goes to `path`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("a", buffering=1)
    except OSError as error:
        print(f"cannot write {path}: {error}", file=sys.stderr)
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    # They wrote to what Ray gave them, in blocks; the last lines before a death matter most.
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    faulthandler.enable(file=log)
    return log


def _python_stacks() -> str:
    with io.StringIO() as text:
        for thread_id, frame in sys._current_frames().items():
            print(f"thread {thread_id:#x}", file=text)
            traceback.print_stack(frame, file=text)
        return text.getvalue()
