"""Weights inside one process: the location is the buffer itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlhf_cluster.errors import WeightsUnavailable
from rlhf_cluster.records import WeightHandle, WeightManifest


class MemoryTransport:
    """For the local runtime, where learner and workers share an address space. The handle keeps its version alive."""

    def publish(
        self, manifest: WeightManifest, buffer: np.ndarray, *, author: tuple[int, int] = (0, 0), is_delta: bool = False
    ) -> Any:
        read_only = buffer.view()
        read_only.setflags(write=False)
        return read_only

    def fetch(self, handle: WeightHandle) -> np.ndarray:
        if not isinstance(handle.location, np.ndarray):
            raise WeightsUnavailable(f"weights version {handle.version} were not published in this process's memory")
        return handle.location

    def close(self) -> None:
        pass
