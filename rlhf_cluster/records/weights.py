"""A weight version on its way: what it consists of, where it lies, and how a worker proves it holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One tensor inside the flat buffer of a version."""

    name: str
    """Hugging Face parameter name."""
    shape: tuple[int, ...]
    dtype: str
    """`bfloat16`, `float16` or `float32`."""
    offset: int
    """First byte within the buffer, a multiple of 64."""
    num_bytes: int
    digest: str
    """xxh3-64 of the bytes, 16 hex digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """Names, shapes, dtypes and digests of one version. `fingerprint` covers all of them."""

    version: int
    tensors: tuple[TensorSpec, ...]
    num_bytes: int
    fingerprint: str
    """xxh3-128 over every (name, shape, dtype, digest), 32 hex digits; the version number is not part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitProbe:
    """Fixed tokens and the log-probabilities that the learner's own model gives them under this version."""

    token_ids: np.ndarray
    """int32 [T]."""
    logprobs: np.ndarray
    """float32 [T-1], of token_ids[1:] given what comes before each."""
    tolerance: float
    """Largest mean absolute gap an engine may show; depends on its dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDelta:
    """Where a version differs from the one published before it; applied to that one's bytes it gives this one's."""

    base_version: int
    base_fingerprint: str
    """Of the version that the delta must be applied to."""
    location: Any
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightHandle:
    """What a worker needs to adopt a version: small, picklable, passed by the driver without touching the weights."""

    manifest: WeightManifest
    location: Any
    """Understood by the transport that published it: an object reference, a path, a key. None where only the delta was
    published; `Learner.publish_full` then makes a handle that has one."""
    probe: LogitProbe
    delta: WeightDelta | None = None
    author: tuple[int, int] = (0, 0)
    """(job epoch, incarnation of the learner group) that published it; a worker refuses what an older author sends."""
    deltas_follow: bool = False
    """Later versions may come as deltas alone: a worker keeps this one's bytes to apply them to."""

    @property
    def version(self) -> int:
        return self.manifest.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A worker's proof that it serves a version."""

    worker_id: str
    version: int
    fingerprint: str
    """Of the bytes the worker received; equal to the manifest's."""
    num_held_tensors: int
    """Tensors whose bytes were read back out of the engine and matched; the rest are covered by the probe alone."""
    probe_gap: float
    """Mean absolute log-probability gap on the probe tokens."""
    adopt_s: float
