"""Weights in Ray's object store: one copy a node, mapped by its workers without another; never through the driver."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray
import ray.exceptions

from rlhf_cluster.errors import WeightsUnavailable
from rlhf_cluster.records import WeightHandle, WeightManifest
from rlhf_cluster.weights.recent import RecentVersions

FETCH_TIMEOUT_S = 300.0


class ObjectStoreTransport:
    """The publishing rank owns the objects; they go when it dies, and a new group publishes again."""

    def __init__(self) -> None:
        self._kept = RecentVersions()

    def publish(
        self, manifest: WeightManifest, buffer: np.ndarray, *, author: tuple[int, int] = (0, 0), is_delta: bool = False
    ) -> Any:
        reference = ray.put(buffer)
        self._kept.add(reference, version=manifest.version)
        return reference

    def fetch(self, handle: WeightHandle) -> np.ndarray:
        try:
            return ray.get(handle.location, timeout=FETCH_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            raise WeightsUnavailable(f"weights version {handle.version} left the object store: {error}") from error

    def close(self) -> None:
        self._kept.clear()
