"""What a complete checkpoint is: a directory whose manifest names every file with its size and digest.

The manifest is written last and holds a digest of itself. Digests are xxh3 (https://xxhash.com): they find torn,
truncated, mixed-up and decayed files at the speed of the disk, and are no guard against an attacker.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import xxhash

from rlhf_cluster.errors import CheckpointCorrupt

MANIFEST = "MANIFEST.json"
READ_BYTES = 8 * 2**20


def seal(directory: Path, *, step: int, epoch: int) -> None:
    """Put every file of `directory` on the disk, then the manifest over them. Raises `OSError`."""
    files = {}
    for file in sorted(directory.rglob("*")):
        if file.is_file():
            flush(file)
            files[str(file.relative_to(directory))] = described(file)
        else:
            flush(file)
    manifest = {"step": step, "epoch": epoch, "files": files}
    manifest_file = directory / MANIFEST
    manifest_file.write_text(json.dumps({**manifest, "xxh3_128": _digest_of(manifest)}, indent=1) + "\n")
    flush(manifest_file)
    flush(directory)


def verify(checkpoint: Path) -> None:
    """Raise `CheckpointCorrupt`, naming the file and what differs, unless all is there as it was written.

    Files that the manifest does not name are left alone. Reads every byte.
    """
    for name, expected in sealed(checkpoint).items():
        file = checkpoint / name
        if not file.is_file():
            raise CheckpointCorrupt(f"{checkpoint} is not whole: {name} is missing")
        # The size first: it costs nothing, and a truncated file is the likeliest damage.
        num_bytes = file.stat().st_size
        if num_bytes != expected["bytes"]:
            raise CheckpointCorrupt(f"{file} has {num_bytes} bytes, and {expected['bytes']} were written")
        found = described(file)
        if found != expected:
            raise CheckpointCorrupt(
                f"{file} has changed since it was written: its digest is {found['xxh3_128']}, "
                f"and {expected['xxh3_128']} is in the manifest"
            )


def flush(path: Path) -> None:
    """Put a file's bytes, or a directory's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(checkpoint: Path) -> dict[str, dict[str, Any]]:
    """Name -> `bytes` and `xxh3_128`, as written in the manifest, of every file. Reads the manifest alone, and raises
    `CheckpointCorrupt` unless that is whole."""
    file = checkpoint / MANIFEST
    if not file.is_file():
        raise CheckpointCorrupt(f"{checkpoint} is not whole: {MANIFEST} is missing")
    try:
        manifest = json.loads(file.read_bytes())
        digest = manifest.pop("xxh3_128")
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointCorrupt(f"{file} is no manifest: {error!r}") from error
    if digest != _digest_of(manifest):
        raise CheckpointCorrupt(f"{file} has changed since it was written: its own digest is not that of its content")
    if not checkpoint.name.endswith(f"step-{manifest['step']:06d}"):
        raise CheckpointCorrupt(f"{checkpoint} is a checkpoint of step {manifest['step']} under another name")
    return manifest["files"]


def described(file: Path) -> dict[str, Any]:
    """Size and digest. Reads every byte."""
    digest, num_bytes = xxhash.xxh3_128(), 0
    with file.open("rb") as stream:
        while part := stream.read(READ_BYTES):
            digest.update(part)
            num_bytes += len(part)
    return {"bytes": num_bytes, "xxh3_128": digest.hexdigest()}


def _digest_of(manifest: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(manifest, sort_keys=True).encode())
