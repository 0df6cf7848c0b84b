"""From the names in a job's `observers` to observers: the table of built-in ones, and import paths for all others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from rlhf_cluster.driver.observers.base import Observer, Observers
from rlhf_cluster.driver.observers.console import Console
from rlhf_cluster.driver.observers.curve import Curve
from rlhf_cluster.driver.observers.held_out import HeldOut
from rlhf_cluster.driver.observers.journal import Journal
from rlhf_cluster.driver.observers.samples import Samples
from rlhf_cluster.driver.observers.tensorboard import TensorBoard
from rlhf_cluster.errors import ConfigError, did_you_mean
from rlhf_cluster.outside import load_outside
from rlhf_cluster.records.events import Event, JobStarted

IN_JOB_DIR = {"journal": Journal, "tensorboard": TensorBoard, "samples": Samples, "curve": Curve, "held_out": HeldOut}
NAMES = ("console", *IN_JOB_DIR)


def build(names: Sequence[str], job_dir: Path, *, stream: TextIO | None = None) -> Observers:
    """Open the named observers; `module:Class` is called as `Class(job_dir)`. The console writes to `stream` (stdout).

    Raises `ConfigError` for a name that is neither built in nor importable.
    """
    opened = Observers()
    try:
        for name in dict.fromkeys(names):
            opened.add(_factory(name, stream=stream)(job_dir))
    except BaseException:
        opened.close()
        raise
    return opened


class JobObservers:
    """The named observers, opened when the job says where its directory is; unknown names are refused at once."""

    def __init__(self, names: Sequence[str], *, stream: TextIO | None = None) -> None:
        for name in names:
            _factory(name, stream=stream)
        self._names = names
        self._stream = stream
        self._opened = Observers()
        self.job_dir: Path | None = None
        """None before the job has started."""

    def on_event(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            self.job_dir = event.job_dir
            self._opened = build(self._names, event.job_dir, stream=self._stream)
        self._opened.on_event(event)

    def close(self) -> None:
        self._opened.close()


def _factory(name: str, *, stream: TextIO | None) -> Callable[[Path], Observer]:
    if name == "console":
        return lambda _: Console(stream)
    if name in IN_JOB_DIR:
        return IN_JOB_DIR[name]
    if ":" not in name:
        raise ConfigError(
            f"observers: {name!r} is unknown{did_you_mean(name, NAMES)}; built in are {', '.join(NAMES)}; "
            'one of your own is named by import path, such as "my_package.alerts:ChatAlert"'
        )
    return _import(name)


def _import(path: str) -> Callable[[Path], Observer]:
    kind = load_outside(path, what="observer")
    if not (
        inspect.isclass(kind) and callable(getattr(kind, "on_event", None)) and callable(getattr(kind, "close", None))
    ):
        raise ConfigError(f"observer {path!r} is no class with the methods on_event(event) and close()")
    return kind
