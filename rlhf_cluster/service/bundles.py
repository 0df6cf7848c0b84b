"""Uploaded code: a zip file that is refused before anybody unpacks it, where unpacking it could write or fill anything
but its own directory."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rlhf_cluster.errors import ConfigError

MAX_FILES = 10_000
MAX_RATIO = 100
"""Of a member's size to what it takes in the zip: deflate reaches more only on what says nothing."""
RATIO_FROM_BYTES = 2**20
"""Small members may be packed as well as they like."""
MAX_NAME = 1024
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
PIECE_BYTES = 2**20


def check(path: Path, *, max_bytes: int) -> None:
    """Raises `ConfigError` with the first thing that is wrong. `max_bytes` bounds it unpacked."""
    try:
        with zipfile.ZipFile(path) as bundle:
            members = bundle.infolist()
            _check_listed(members, max_bytes=max_bytes)
            for member in members:
                _check_content(bundle, member)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the bundle is no zip file that can be read: {error}") from error


def _check_listed(members: Sequence[zipfile.ZipInfo], *, max_bytes: int) -> None:
    if len(members) > MAX_FILES:
        raise ConfigError(f"the bundle has {len(members)} files; it may have {MAX_FILES}")
    num_bytes = sum(member.file_size for member in members)
    if num_bytes > max_bytes:
        raise ConfigError(f"the bundle is {num_bytes} bytes unpacked; it may be {max_bytes}")
    names = [member.filename.rstrip("/") for member in members]
    if len({name.casefold() for name in names}) < len(names):
        raise ConfigError("the bundle holds a name twice, perhaps in upper and lower case")
    for member in members:
        if problem := _problem(member):
            raise ConfigError(f"the bundle's {member.filename[:200]!r} {problem}")


def _problem(member: zipfile.ZipInfo) -> str | None:
    name, mode = member.filename, member.external_attr >> 16
    if len(name) > MAX_NAME or re.search(r"[\x00-\x1f\x7f\\]", name):
        return "has a name that is too long, or has a backslash or a control character"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "has an absolute path; names in a bundle begin in its own directory"
    if ".." in PurePosixPath(name).parts:
        return "leads out of the bundle with '..'"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a symbolic link or a device; a bundle holds files and directories"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in METHODS:
        return "is packed in another way than deflate"
    if member.file_size > RATIO_FROM_BYTES and member.file_size > MAX_RATIO * member.compress_size:
        return f"grows more than {MAX_RATIO} times when it is unpacked"
    return None


def _check_content(bundle: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Read to its end, which also compares its size and checksum with what the zip says of them."""
    num_bytes = 0
    with bundle.open(member) as stream:
        while piece := stream.read(PIECE_BYTES):
            num_bytes += len(piece)
    if num_bytes != member.file_size:
        raise ConfigError(f"the bundle's {member.filename!r} has {num_bytes} bytes and says {member.file_size}")
