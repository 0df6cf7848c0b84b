"""Weights as files in a directory that learner and workers both see: a shared disk, or `/dev/shm` on one node."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.errors import WeightsUnavailable
from rlhf_cluster.records import WeightHandle, WeightManifest
from rlhf_cluster.weights.recent import RecentVersions

_AUTHOR = re.compile(r"-by-(\d+)-(\d+)\.")


class FilesystemTransport:
    """One file a version, complete or absent: written aside, flushed, renamed. Readers map it, so pages are shared."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._published = RecentVersions()

    def publish(
        self, manifest: WeightManifest, buffer: np.ndarray, *, author: tuple[int, int] = (0, 0), is_delta: bool = False
    ) -> Any:
        self.directory.mkdir(parents=True, exist_ok=True)
        epoch, incarnation = author
        kind = "delta" if is_delta else "weights"
        # The author's name keeps a learner that was replaced, and does not know it, away from its successor's files.
        path = self.directory / f"version-{manifest.version:08d}-by-{epoch}-{incarnation}.{kind}"
        aside = path.with_name(f"{path.name}.partial")
        with aside.open("wb") as file:
            file.write(buffer.data)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        for expired in [*self._published.add(path, version=manifest.version), *self._left_behind(author)]:
            expired.unlink(missing_ok=True)
        return str(path)

    def _left_behind(self, author: tuple[int, int]) -> list[Path]:
        """Files of earlier learners. One that is killed cannot remove them, and in `/dev/shm` they are memory."""
        names = ((path, _AUTHOR.search(path.name)) for path in self.directory.iterdir())
        return [path for path, by in names if by and (int(by[1]), int(by[2])) < author]

    def fetch(self, handle: WeightHandle) -> np.ndarray:
        try:
            return np.memmap(handle.location, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise WeightsUnavailable(f"weights version {handle.version} at {handle.location}: {error}") from error

    def close(self) -> None:
        """Remove what this side published; a side that only fetched has nothing to remove."""
        for path in self._published.clear():
            path.unlink(missing_ok=True)
