"""A weight version as one flat buffer: built by the learner, cut into tensors again by a worker, checked on both sides.

One buffer makes one object for a transport and one copy for the node. Digests are xxh3 (https://xxhash.com): fast
enough to hash every byte of every version; they guard against torn, mixed and misrouted bytes, not against an attacker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
import xxhash

from rlhf_cluster.errors import FingerprintMismatch, ManifestMismatch
from rlhf_cluster.records import TensorSpec, WeightManifest

ALIGNMENT = 64
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def flatten(
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    version: int,
    dtype: torch.dtype,
    shapes: Sequence[torch.Size] | None = None,
) -> tuple[WeightManifest, np.ndarray]:
    """Cast every tensor to `dtype` into one new buffer; returns the manifest and uint8 [num_bytes].

    With their `shapes` in order, tensors that are made as they are iterated are taken one at a time.
    """
    if shapes is None:
        tensors = list(tensors)
        shapes = [tensor.shape for _, tensor in tensors]
    offsets = np.cumsum([0] + [_aligned(shape.numel() * dtype.itemsize) for shape in shapes])
    buffer = torch.empty(int(offsets[-1]), dtype=torch.uint8)
    specs = []
    for (name, tensor), offset in zip(tensors, offsets[:-1].tolist(), strict=True):
        num_bytes = tensor.numel() * dtype.itemsize
        target = buffer[offset : offset + num_bytes].view(dtype).view(tensor.shape)
        target.copy_(tensor.detach())
        buffer[offset + num_bytes : offset + _aligned(num_bytes)] = 0
        specs.append(
            TensorSpec(
                name=name,
                shape=tuple(tensor.shape),
                dtype=str(dtype).removeprefix("torch."),
                offset=offset,
                num_bytes=num_bytes,
                digest=tensor_digest(target),
            )
        )
    manifest = WeightManifest(
        version=version, tensors=tuple(specs), num_bytes=int(offsets[-1]), fingerprint=fingerprint(specs)
    )
    return manifest, buffer.numpy()


def unflatten(manifest: WeightManifest, buffer: np.ndarray) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) views into the buffer, in manifest order; no copy. Treat them as read-only."""
    for spec in manifest.tensors:
        # torch has no read-only tensors and warns about such arrays; a writable view of the same memory is not written.
        raw = np.frombuffer(buffer.data, dtype=np.uint8, count=spec.num_bytes, offset=spec.offset)
        yield spec.name, _as_tensor(raw).view(DTYPES[spec.dtype]).view(spec.shape)


def verify(manifest: WeightManifest, buffer: np.ndarray) -> None:
    """Raise `FingerprintMismatch` unless `buffer` is exactly what the manifest describes."""
    if buffer.nbytes != manifest.num_bytes:
        raise FingerprintMismatch(
            f"weights version {manifest.version}: {buffer.nbytes} bytes arrived, the manifest says {manifest.num_bytes}"
        )
    for spec in manifest.tensors:
        digest = xxhash.xxh3_64_hexdigest(buffer[spec.offset : spec.offset + spec.num_bytes].data)
        if digest != spec.digest:
            raise FingerprintMismatch(
                f"weights version {manifest.version}: {spec.name} arrived as {digest}, was published as {spec.digest}"
            )
    if fingerprint(manifest.tensors) != manifest.fingerprint:
        raise FingerprintMismatch(
            f"weights version {manifest.version}: the manifest does not match its own fingerprint"
        )


def check_shapes(manifest: WeightManifest, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise `ManifestMismatch` unless names and shapes are those of the worker's model."""
    offered = {spec.name: spec.shape for spec in manifest.tensors}
    for name, shape in expected.items():
        if name not in offered:
            raise ManifestMismatch(f"weights version {manifest.version} lack {name}, which this worker's model has")
        if offered[name] != shape:
            raise ManifestMismatch(
                f"weights version {manifest.version}: {name} has shape {offered[name]}, this worker's model {shape}"
            )
    if extra := sorted(offered.keys() - expected.keys()):
        raise ManifestMismatch(f"weights version {manifest.version} have {extra[0]}, unknown to this worker's model")


def changed_ranges(before: WeightManifest, after: WeightManifest) -> list[tuple[int, int]] | None:
    """(first byte, number of bytes) of every tensor that differs; None where the two are not laid out alike."""
    if len(before.tensors) != len(after.tensors):
        return None
    changed = []
    for old, new in zip(before.tensors, after.tensors, strict=True):
        if replace(old, digest=new.digest) != new:
            return None
        if old.digest != new.digest:
            changed.append((new.offset, new.num_bytes))
    return changed


def tensor_digest(tensor: torch.Tensor) -> str:
    """xxh3-64 of a CPU tensor's bytes in row-major order."""
    return xxhash.xxh3_64_hexdigest(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy())


def fingerprint(specs: Iterable[TensorSpec]) -> str:
    """xxh3-128 over names, shapes, dtypes and digests, independent of the order and of offsets."""
    lines = sorted(f"{spec.name} {spec.shape} {spec.dtype} {spec.digest}" for spec in specs)
    return xxhash.xxh3_128_hexdigest("\n".join(lines).encode())


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _as_tensor(raw: np.ndarray) -> torch.Tensor:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(raw)
