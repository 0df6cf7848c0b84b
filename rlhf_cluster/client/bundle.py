"""A job's own code as a zip file, the same byte for byte for the same files: the service keeps it by its hash."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlhf_cluster.errors import ConfigError

LEFT_OUT = (".git", "__pycache__", ".venv", "node_modules", ".pytest_cache", ".ruff_cache", ".mypy_cache")
MAX_FILES = 10_000
MAX_BYTES = 256 * 2**20
"""Before packing. The service has a bound of its own; this one ends the mistake of a whole home directory."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    content: bytes
    sha256: str
    num_files: int


def pack(directory: Path) -> Bundle:
    """All regular files below `directory`, in the order of their names. Raises `ConfigError` for what cannot be."""
    files = sorted(_files(directory), key=lambda path: path.relative_to(directory).as_posix())
    if not files:
        raise ConfigError(f"{directory} holds no file that could be sent as the job's code")
    buffer, num_bytes = io.BytesIO(), 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path in files:
            try:
                content = path.read_bytes()
                mode = path.stat().st_mode
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
            num_bytes += len(content)
            if num_bytes > MAX_BYTES:
                raise ConfigError(
                    f"{directory} has more than {MAX_BYTES // 2**20} MiB: give the directory of the code alone"
                )
            bundle.writestr(_member(path.relative_to(directory).as_posix(), mode), content)
    content = buffer.getvalue()
    return Bundle(content=content, sha256=hashlib.sha256(content).hexdigest(), num_files=len(files))


def _member(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = (stat.S_IFREG | (0o755 if mode & stat.S_IXUSR else 0o644)) << 16
    return member


def _files(directory: Path) -> Iterator[Path]:
    """A symbolic link is refused: what it points to is not there where the job runs."""
    num_files = 0
    for where, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name not in LEFT_OUT)
        for name in (*directories, *names):
            path = Path(where) / name
            if path.is_symlink():
                raise ConfigError(f"{path} is a symbolic link, which cannot be sent: put the file itself there")
        for path in (Path(where) / name for name in names if name not in LEFT_OUT):
            if not path.is_file():
                raise ConfigError(f"{path} is no regular file and cannot be sent")
            num_files += 1
            if num_files > MAX_FILES:
                raise ConfigError(f"{directory} has more than {MAX_FILES} files: give the directory of the code alone")
            yield path
