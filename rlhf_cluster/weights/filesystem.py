"""Weights as files in a directory that learner and workers both see: a shared disk, or `/dev/shm` on one node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_cluster.errors import WeightsUnavailable
from rlhf_cluster.records import WeightHandle, WeightManifest

KEPT_VERSIONS = 2


class FilesystemTransport:
    """One file a version, complete or absent: written aside, flushed, renamed. Readers map it, so pages are shared."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._published: list[Path] = []

    def publish(self, manifest: WeightManifest, buffer: np.ndarray) -> Any:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"version-{manifest.version:08d}.weights"
        aside = path.with_suffix(".partial")
        with aside.open("wb") as file:
            file.write(buffer.data)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        self._published = [*(p for p in self._published if p != path), path]
        while len(self._published) > KEPT_VERSIONS:
            self._published.pop(0).unlink(missing_ok=True)
        return str(path)

    def fetch(self, handle: WeightHandle) -> np.ndarray:
        try:
            return np.memmap(handle.location, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise WeightsUnavailable(f"weights version {handle.version} at {handle.location}: {error}") from error

    def close(self) -> None:
        """Remove what this side published; a side that only fetched has nothing to remove."""
        while self._published:
            self._published.pop().unlink(missing_ok=True)
