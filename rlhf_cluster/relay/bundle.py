"""The code that was uploaded with a job, unpacked once in the job's directory, where every node finds it."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from pathlib import Path

from rlhf_cluster.errors import StorageError
from rlhf_cluster.relay.link import Link, Refused


async def fetch(link: Link, job_dir: Path, *, sha256: str) -> Path:
    """The directory with the code. Raises `StorageError`, `Refused` for what is not the bundle, `Unreachable`."""
    directory = job_dir / f"code-{sha256[:16]}"
    if directory.is_dir():
        return directory
    aside = job_dir / f".{directory.name}.{os.getpid()}"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        packed = aside / "bundle.zip"
        await link.bundle(packed)
        _unpack(packed, aside / "code", sha256=sha256)
        (aside / "code").rename(directory)
    except OSError as error:
        raise StorageError(f"the job's code cannot be unpacked in {job_dir}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return directory


def _unpack(packed: Path, directory: Path, *, sha256: str) -> None:
    """The service has looked at every member before it took the bundle in, so its digest is all to look at here."""
    with packed.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise Refused(f"the bundle that came has SHA-256 {found}, the job's has {sha256}")
    directory.mkdir()
    with zipfile.ZipFile(packed) as bundle:
        bundle.extractall(directory)
