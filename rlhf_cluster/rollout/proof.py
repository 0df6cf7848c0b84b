"""What a worker demands before it serves a weight version: every byte that arrived, every shape, what the engine holds,
and the log-probabilities it computes from it."""

from __future__ import annotations

import numpy as np

from rlhf_cluster.errors import FingerprintMismatch, ManifestMismatch, ProbeMismatch
from rlhf_cluster.records import LogitProbe, WeightHandle, WeightManifest
from rlhf_cluster.roles import WeightTransport
from rlhf_cluster.rollout.engine import Engine
from rlhf_cluster.weights import flat


def fetch_verified(transport: WeightTransport, handle: WeightHandle) -> np.ndarray:
    """uint8 [num_bytes], exactly what the manifest describes. Raises `WeightsUnavailable` or `FingerprintMismatch`."""
    buffer = transport.fetch(handle)
    flat.verify(handle.manifest, buffer)
    return buffer


def load_and_prove(engine: Engine, handle: WeightHandle, buffer: np.ndarray) -> tuple[int, float]:
    """Returns (tensors read back and matched, mean absolute gap on the probe). Raises a `WeightError`.

    Whatever it raises, the engine may hold half a version afterwards and must not serve.
    """
    check_manifest(engine, handle.manifest)
    engine.load_weights(handle.version, flat.unflatten(handle.manifest, buffer))
    num_held = check_held(engine, handle.manifest)
    return num_held, check_probe(engine, handle, num_held=num_held)


def check_manifest(engine: Engine, manifest: WeightManifest) -> None:
    """Raise `ManifestMismatch` unless names, shapes and dtypes are those of the engine's model."""
    shapes = engine.expected_shapes()
    if shapes is not None:
        flat.check_shapes(manifest, dict(shapes))
    for spec in manifest.tensors:
        if engine.dtype not in (None, spec.dtype):
            raise ManifestMismatch(
                f"weights version {manifest.version}: {spec.name} arrived as {spec.dtype} and the engine serves "
                f"{engine.dtype}: set rollout.engine.dtype to {spec.dtype}, or publish in {engine.dtype}"
            )


def check_held(engine: Engine, manifest: WeightManifest) -> int:
    """Compare what the engine holds with what was published; returns how many tensors could be read back."""
    published = {spec.name: spec.digest for spec in manifest.tensors}
    held = engine.held_digests()
    for name, digest in held.items():
        if published.get(name) != digest:
            raise FingerprintMismatch(
                f"weights version {manifest.version}: the engine holds {name} as {digest}, it was published as "
                f"{published.get(name, 'nothing')}"
            )
    return len(held)


def check_probe(engine: Engine, handle: WeightHandle, *, num_held: int) -> float:
    """Mean absolute gap between the engine's and the learner's log-probabilities. Raises `ProbeMismatch`."""
    logprobs = engine.probe(handle.probe.token_ids)
    if not len(logprobs) and num_held == len(handle.manifest.tensors):
        return 0.0  # An engine without logits has proven every byte it holds.
    gap = probe_gap(handle.probe, logprobs)
    if not gap <= handle.probe.tolerance:
        raise ProbeMismatch(
            f"weights version {handle.version}: the engine's log-probabilities on the probe tokens are {gap:.2g} away "
            f"from the learner's on average, {handle.probe.tolerance:.2g} is allowed"
        )
    return gap


def probe_gap(probe: LogitProbe, logprobs: np.ndarray) -> float:
    """Infinite where the lengths differ, NaN where a log-probability is NaN."""
    if logprobs.shape != probe.logprobs.shape:
        return float("inf")
    return float(np.abs(logprobs - probe.logprobs).mean())
