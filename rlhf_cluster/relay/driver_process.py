"""The driver as a child of the relay: started, stopped in two steps, its end told with signal and last words."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from rlhf_cluster.errors import StorageError
from rlhf_cluster.relay.spool import last_lines
from rlhf_cluster.wire.relay import Ended

COMPONENT = "driver"
NUM_LAST_LINES = 50
DONE, USAGE, NOT_FOUND, BY_GUARD, INTERRUPTED = 0, 2, 3, 6, 130
"""Exit codes of `rlhf resume`. With USAGE the job file, its data or its model is wrong, with NOT_FOUND something that
it names is not there, with BY_GUARD a guard has seen learning go wrong: another attempt would end the same way.
Anything else may have been the machine's fault."""
RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
SECRETS = ("RLHF_ATTEMPT_TOKEN", "RLHF_SERVICE_URL")
"""Not for the driver, which runs code of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverEnd:
    code: int
    """Negative: the signal that ended it."""
    was_asked: bool
    """Whether the relay had told it to stop."""
    last_lines: tuple[str, ...]

    def report(self, *, said: Mapping[str, Any]) -> Ended:
        """As the service is told; `said` are outcome and message of the job's own last event, where it left one."""
        return Ended(
            outcome=said.get("outcome") or self._outcome(),
            exit_code=self.code,
            message=(said.get("message") or self._message())[:10_000],
            may_be_retried=self.code not in (USAGE, NOT_FOUND, BY_GUARD),
            last_lines=list(self.last_lines),
        )

    def _outcome(self) -> Literal["succeeded", "failed", "interrupted"]:
        if self.code == DONE:
            return "succeeded"
        is_stopped = self.code == INTERRUPTED or (self.code < 0 and self.was_asked)
        return "interrupted" if is_stopped else "failed"

    def _message(self) -> str:
        if self.code < 0:
            return f"the driver was ended by {_signal_name(-self.code)}"
        errors = [line.removeprefix("Error: ") for line in self.last_lines if line.startswith("Error: ")]
        if self.code == DONE:
            return "done"
        return errors[-1] if errors else f"the driver ended with exit code {self.code}"


class DriverProcess:
    """Made by `start`, from the thread that lives as long as the relay: the child dies with it."""

    def __init__(self, process: asyncio.subprocess.Process, log_path: Path) -> None:
        self._process = process
        self._log_path = log_path
        self._was_asked = False

    @classmethod
    async def start(cls, job_dir: Path, *, code_dir: Path | None = None, command: Sequence[str] = ()) -> DriverProcess:
        """Works in `code_dir`, which Ray then puts on the path of its actors too. `command` in place of the driver is
        for tests. Raises `StorageError` where its log cannot be written."""
        path = job_dir / "logs" / f"{COMPONENT}.log"
        resume = (sys.executable, "-m", "rlhf_cluster.cli", "resume", str(job_dir), "--take-over")
        # A session of its own: who signals the relay's group means the relay, which then decides.
        with _open_log(path) as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "rlhf_cluster.tied", str(os.getpid()), *(command or resume)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=code_dir,
                env=environment(os.environ, code_dir=code_dir),
                start_new_session=True,
            )
        return cls(process, path)

    @property
    def process_id(self) -> int:
        return self._process.pid

    async def wait(self) -> DriverEnd:
        """Returns when it has ended, however long that takes."""
        code = await self._process.wait()
        lines = last_lines(self._log_path, num_lines=NUM_LAST_LINES)
        return DriverEnd(code=code, was_asked=self._was_asked, last_lines=tuple(lines))

    def stop(self, *, grace_s: float) -> None:
        """It ends after the step under way, with a checkpoint, as by a `Stop`; after `grace_s` by force. Asking again
        changes nothing. A signal and not a command in the inbox, where the next attempt would find it."""
        if not self._was_asked:
            self._was_asked = True
            self._signal(signal.SIGTERM)
            asyncio.get_running_loop().call_later(grace_s, self.kill)

    def kill(self) -> None:
        """At once. Nothing that it has promised is lost: it can be resumed from what lies on disk."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)


def _open_log(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def environment(given: Mapping[str, str], *, code_dir: Path | None) -> dict[str, str]:
    """The driver's: without what only the relay may know, with the job's own code first on its path."""
    kept = {name: value for name, value in given.items() if name not in SECRETS}
    if RAY_JOB in kept:
        kept[RAY_JOB] = _without_secrets(kept[RAY_JOB])
    if code_dir:
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(code_dir), kept.get("PYTHONPATH"))))
    return kept | {"PYTHONUNBUFFERED": "1"}  # the last words of one that is killed must have left it


def _without_secrets(ray_job: str) -> str:
    """Ray gives the environment of a submission to every actor of its driver too, in this variable."""
    job = json.loads(ray_job)
    given = (job.get("runtime_env") or {}).get("env_vars") or {}
    for name in SECRETS:
        given.pop(name, None)
    return json.dumps(job)


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"
