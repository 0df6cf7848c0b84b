"""Policies on disk while a job runs: complete or absent, the newest few kept, and enough beside them to go on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.records.events import CheckpointSaved

if TYPE_CHECKING:
    from rlhf_cluster.learner.group import LearnerGroup

STATE_FILE = "driver_state.json"


class Checkpoints:
    """`checkpoints/step-000012/` is a Hugging Face directory, with the learner's and the driver's state beside it."""

    def __init__(self, directory: Path, *, keep: int, state: Callable[[], dict[str, Any]], clock: Clock) -> None:
        self.directory = directory
        self.keep = keep
        self._state = state
        self._clock = clock

    async def save(self, learner: LearnerGroup, *, step: int) -> CheckpointSaved:
        """Write aside, flush, rename; then remove all but the newest `keep`. What a crash left aside goes first."""
        aside, final = self.directory / f".writing-{step:06d}", self.directory / f"step-{step:06d}"
        state = {"step": step, **self._state()}
        await asyncio.to_thread(self._make_aside, aside)
        await learner.save(aside, with_state=True)
        await asyncio.to_thread(_finish, aside, final, state)
        await asyncio.to_thread(self._remove_old)
        return CheckpointSaved(time_s=self._clock.time(), step=step, path=final)

    def _make_aside(self, aside: Path) -> None:
        for left in self.directory.glob(".*-*"):
            shutil.rmtree(left)
        aside.mkdir(parents=True)

    def _remove_old(self) -> None:
        for old in self.saved()[: -self.keep]:
            _remove(old)

    def saved(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.directory.glob("step-*"))


def read_state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / STATE_FILE).read_text())


def _finish(aside: Path, final: Path, state: dict[str, Any]) -> None:
    (aside / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n")
    for file in aside.rglob("*"):
        if file.is_file():
            _flush(file)
    _flush(aside)
    if final.exists():
        _remove(final)
    aside.rename(final)
    _flush(final.parent)


def _remove(checkpoint: Path) -> None:
    """Out of sight before it is deleted: a crash in between must not leave half of a `step-*`."""
    hidden = checkpoint.with_name(f".removing-{checkpoint.name}")
    checkpoint.rename(hidden)
    shutil.rmtree(hidden)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
