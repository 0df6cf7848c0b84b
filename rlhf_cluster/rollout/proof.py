"""What a worker demands before it serves a weight version: every byte that arrived, every shape, what the engine holds,
and the log-probabilities it computes from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rlhf_cluster.errors import (
    FingerprintMismatch,
    ManifestMismatch,
    NeedsFullVersion,
    ProbeMismatch,
    WeightsUnavailable,
)
from rlhf_cluster.records import LogitProbe, WeightHandle, WeightManifest
from rlhf_cluster.roles import WeightTransport
from rlhf_cluster.rollout.engine import Engine
from rlhf_cluster.weights import delta, flat


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A version that arrived and was verified, byte by byte."""

    manifest: WeightManifest
    buffer: np.ndarray
    """uint8 [num_bytes]."""
    is_own: bool
    """Whether `buffer` belongs to this worker alone, so that the next delta may be applied in place."""


def fetch_verified(transport: WeightTransport, handle: WeightHandle, base: Received | None = None) -> Received:
    """The version, exactly as its manifest describes it: by the delta where `base` is what it applies to, else whole.

    `base` is used up: its bytes become those of the new version. Raises `WeightsUnavailable`, `FingerprintMismatch`,
    or, with `base` left as it was, `NeedsFullVersion`.
    """
    if base is not None and base.manifest.tensors == handle.manifest.tensors:
        received = replace(base, manifest=handle.manifest)
    elif (changes := _fetch_delta(transport, handle, base)) is not None:
        assert base is not None, "a delta was fetched because there is something to apply it to"
        buffer = base.buffer if base.is_own else np.array(base.buffer)
        delta.apply_in_place(buffer, changes)
        received = Received(manifest=handle.manifest, buffer=buffer, is_own=True)
    else:
        received = Received(manifest=handle.manifest, buffer=transport.fetch(handle), is_own=False)
    flat.verify(received.manifest, received.buffer)
    return received


def _fetch_delta(transport: WeightTransport, handle: WeightHandle, base: Received | None) -> np.ndarray | None:
    """The delta where it applies and is still there, None where the whole version is. Else `NeedsFullVersion`."""
    offered = handle.delta
    held = "nothing" if base is None else f"version {base.manifest.version} ({base.manifest.fingerprint})"
    reason = f"this worker holds {held}"
    if offered and base and base.manifest.fingerprint == offered.base_fingerprint:
        try:
            return transport.fetch(replace(handle, location=offered.location))
        except WeightsUnavailable as error:
            reason = f"the delta cannot be had: {error}"
    if handle.location is not None:
        return None
    applies_to = f"version {offered.base_version} ({offered.base_fingerprint})" if offered else "nothing"
    raise NeedsFullVersion(
        f"weights version {handle.version} was offered as a delta on {applies_to} alone, and {reason}: publish it whole"
    )


def load_and_prove(
    engine: Engine, handle: WeightHandle, buffer: np.ndarray, *, proven: WeightManifest | None = None
) -> tuple[int, float]:
    """Returns (tensors read back and matched, mean absolute gap on the probe). Raises a `WeightError`.

    `proven`: what the engine has been proven to hold; only what differs from it is loaded. None loads everything.
    Whatever is raised, the engine may hold half a version afterwards and must not serve.
    """
    check_manifest(engine, handle.manifest)
    names = engine.names_to_load(changed_names(handle.manifest, proven))
    tensors = flat.unflatten(handle.manifest, buffer)
    engine.load_weights(handle.version, ((name, tensor) for name, tensor in tensors if name in names))
    num_held = check_held(engine, handle.manifest)
    return num_held, check_probe(engine, handle, num_held=num_held)


def changed_names(manifest: WeightManifest, proven: WeightManifest | None) -> frozenset[str]:
    """Tensors that differ from the version proven; all where nothing is, or where it is of another model."""
    known = {spec.name: (spec.shape, spec.dtype, spec.digest) for spec in proven.tensors} if proven else {}
    if known.keys() != {spec.name for spec in manifest.tensors}:
        known = {}
    return frozenset(
        spec.name for spec in manifest.tensors if known.get(spec.name) != (spec.shape, spec.dtype, spec.digest)
    )


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
