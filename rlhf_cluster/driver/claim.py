"""Who drives a job: one driver at a time, each under a number of its own, and the older one finds out and stops.

`epochs/000003.json` of the job directory is the third driver's claim. The file is made by whoever is first; a driver
that finds the next number taken has been replaced, and must write nothing more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from rlhf_cluster.driver.record_json import build, parse_object
from rlhf_cluster.driver.whole_file import read_small, write_whole
from rlhf_cluster.errors import ConfigError, Fenced, StorageError

DIRECTORY = "epochs"
MAX_CLOCK_GAP_S = 2.0
"""Two readings of one process's start differ by less; a process that got its id later started later than that."""
WRITING_S = 1.0
"""A claim that cannot be read for so long is that of a driver that died while it wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverView:
    """A claim, as read from its file."""

    epoch: int
    process_id: int
    host: str
    process_started_s: float
    """Unix time; tells the process from a later one with the same id."""
    claimed_s: float
    """Unix time."""
    ended_s: float = 0.0
    """Unix time of the release; 0 while the claim holds."""

    @property
    def is_alive(self) -> bool | None:
        """None for a process of another host, of which nothing is known here."""
        if self.ended_s or not self.process_id:
            return False
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.process_id)
            same = abs(process.create_time() - self.process_started_s) < MAX_CLOCK_GAP_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Claim:
    """Made by `take`. `check` before every write that must not come from a replaced driver."""

    def __init__(self, directory: Path, view: DriverView) -> None:
        self._directory = directory
        self._view = view
        self._next = str(_path(directory, view.epoch + 1))

    @classmethod
    def take(cls, job_dir: Path, *, take_over: bool = False) -> Claim:
        """Become the driver of the job. Raises `ConfigError` when another one is alive, or may be, unless `take_over`.

        Nobody is ended by it: the driver that is taken over from finds out at its next `check`.
        """
        directory = job_dir / DIRECTORY
        directory.mkdir(parents=True, exist_ok=True)
        while True:
            newest = current_driver(job_dir)
            if newest and newest.is_alive is not False and not take_over:
                raise ConfigError(_refusal(job_dir, newest))
            view = _own_view(epoch=newest.epoch + 1 if newest else 1)
            try:
                _create(_path(directory, view.epoch), view)
            except FileExistsError:  # somebody was faster; see who
                continue
            except OSError as error:
                raise StorageError(f"{directory} cannot be written: {error.strerror}") from error
            return cls(directory, view)

    @property
    def epoch(self) -> int:
        """1 for the first driver of a job."""
        return self._view.epoch

    def check(self) -> None:
        """Raises `Fenced` when another driver has taken over."""
        if os.path.exists(self._next):
            raise Fenced(
                f"driver {self.epoch} (process {self._view.process_id}) was replaced by driver {self.epoch + 1}: "
                "it writes nothing more and ends; the job goes on under the other one"
            )

    def release(self) -> None:
        """The driver has ended; anybody may take the job now, on any host.

        Where that cannot be written, this host sees it by the process that is gone, and others need `take_over`.
        """
        self._view = replace(self._view, ended_s=time.time())
        with contextlib.suppress(OSError):
            write_whole(_path(self._directory, self.epoch), json.dumps(asdict(self._view)) + "\n")


def current_driver(job_dir: Path) -> DriverView | None:
    """The newest claim, alive or not; None for a job that was never driven."""
    numbers = [int(path.stem) for path in (job_dir / DIRECTORY).glob("[0-9]*.json")]
    return _read(_path(job_dir / DIRECTORY, max(numbers)), epoch=max(numbers)) if numbers else None


def _path(directory: Path, epoch: int) -> Path:
    return directory / f"{epoch:06d}.json"


def _own_view(*, epoch: int) -> DriverView:
    process = psutil.Process()
    return DriverView(
        epoch=epoch,
        process_id=process.pid,
        host=socket.gethostname(),
        process_started_s=process.create_time(),
        claimed_s=time.time(),
    )


def _create(path: Path, view: DriverView) -> None:
    """Raises `FileExistsError` when the number is taken."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(asdict(view)) + "\n")
        file.flush()
        os.fsync(descriptor)


def _read(path: Path, *, epoch: int) -> DriverView:
    """What cannot be read is looked at again for a second: its driver may be writing it."""
    deadline_s = time.monotonic() + WRITING_S
    while True:
        try:
            return build(DriverView, parse_object(read_small(path)), extra=True)
        except (OSError, ValueError):
            if time.monotonic() > deadline_s:
                return DriverView(epoch=epoch, process_id=0, host="", process_started_s=0.0, claimed_s=0.0)
        time.sleep(0.02)


def _refusal(job_dir: Path, newest: DriverView) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(newest.claimed_s))
    who = f"process {newest.process_id} on {newest.host}, since {since}"
    if newest.is_alive is None:
        return (
            f"{job_dir} was last driven by {who}, and whether that is still alive cannot be seen from here "
            f"({socket.gethostname()}). If it is gone, take the job over with --take-over"
        )
    return (
        f"{job_dir} is being driven by {who}: end it with `rlhf stop {job_dir}`, "
        "or take the job over with --take-over, and it ends by itself"
    )
