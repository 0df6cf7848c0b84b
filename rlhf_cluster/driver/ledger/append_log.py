"""A file that only grows, of framed records: what was committed is there after any crash, and a torn tail is cut off.

    frame = magic (4 bytes) | length (uint32) | xxh3-64 of the payload (uint64) | payload        little-endian

Records wait in memory and are written many at a time; `commit` puts them on the disk. Offsets are known at once.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import xxhash

from rlhf_cluster.errors import LedgerCorrupt, StorageError

MAGIC = b"\xf5RL\xfe"
"""Two of its bytes never occur in UTF-8, so text in a payload cannot look like a frame."""
HEADER = struct.Struct("<4sIQ")
BUFFER_BYTES = 64 * 1024
"""Written to the file, not yet to the disk, as soon as this much waits."""


class AppendLog:
    """One writer. Opening makes the file where there is none, and cuts off what a crash left half-written."""

    def __init__(self, path: Path) -> None:
        """Raises `LedgerCorrupt` when records follow a damaged one, `StorageError` when `path` cannot be written."""
        self.path = path
        self._waiting = bytearray()
        self._failed = False
        try:
            self._file = _open_or_create(path)
            self._end = whole_length(path, path.read_bytes())
            os.ftruncate(self._file, self._end)
        except OSError as error:
            raise _storage_error(path, error) from error

    def append(self, payload: bytes) -> int:
        """Add a record; returns the offset under which `read` finds it. Raises `StorageError`."""
        offset = self._end + len(self._waiting)
        self._waiting += HEADER.pack(MAGIC, len(payload), xxhash.xxh3_64_intdigest(payload))
        self._waiting += payload
        if len(self._waiting) >= BUFFER_BYTES:
            self._write()
        return offset

    def commit(self) -> None:
        """Returns when every record so far is on the disk. Raises `StorageError`."""
        self._write()
        try:
            os.fsync(self._file)
        except OSError as error:
            self._failed = True
            raise _storage_error(self.path, error) from error

    def read(self, offset: int) -> bytes:
        """The payload at `offset`. Raises `LedgerCorrupt` when no whole record is there."""
        self._write()
        return read_record(self.path, offset)

    def records(self) -> Iterator[tuple[int, bytes]]:
        """(offset, payload) of every record, oldest first."""
        self._write()
        return frames(self.path.read_bytes())

    def close(self) -> None:
        """What waits is written, unless the disk has refused already and that was told. Closing twice is fine."""
        if self._file < 0:
            return
        try:
            if not self._failed:
                self._write()
        finally:
            os.close(self._file)
            self._file = -1

    def _write(self) -> None:
        """All that waits, or nothing of it: after an error the file ends with the last whole record again."""
        if not self._waiting:
            return
        try:
            _write_all(self._file, self._waiting, start=self._end)
        except OSError as error:
            self._failed = True
            os.ftruncate(self._file, self._end)
            raise _storage_error(self.path, error) from error
        self._failed = False
        self._end += len(self._waiting)
        self._waiting.clear()


def frames(content: bytes, *, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, payload) of the whole records from `start` on, up to the first that is not whole."""
    offset = start
    while (payload := _payload_at(content, offset)) is not None:
        yield offset, payload
        offset += HEADER.size + len(payload)


def whole_length(path: Path, content: bytes) -> int:
    """Bytes of `content` up to its torn tail. Raises `LedgerCorrupt` where a whole record follows a damaged one."""
    end = 0
    for offset, payload in frames(content):
        end = offset + HEADER.size + len(payload)
    later = content.find(MAGIC, end + 1)
    while later >= 0:
        if _payload_at(content, later) is not None:
            raise LedgerCorrupt(
                f"{path} is damaged at byte {end}, while the record at byte {later} is whole: this is no torn tail. "
                "Restore the file from a copy, or start the job anew from a checkpoint in another directory"
            )
        later = content.find(MAGIC, later + 1)
    return end


def read_record(path: Path, offset: int) -> bytes:
    """Raises `LedgerCorrupt` when no whole record is at `offset`, `OSError` when the file cannot be read."""
    with path.open("rb") as file:
        file.seek(offset)
        header = file.read(HEADER.size)
        length = HEADER.unpack(header)[1] if len(header) == HEADER.size else 0
        payload = _payload_at(header + file.read(length), 0)
    if payload is None:
        raise LedgerCorrupt(f"{path} holds no whole record at byte {offset}: the file is torn or damaged there")
    return payload


def flush_directory(directory: Path) -> None:
    """Put names that were made, renamed or removed in `directory` on the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _payload_at(content: bytes, offset: int) -> bytes | None:
    start = offset + HEADER.size
    if len(content) < start:
        return None
    magic, length, digest = HEADER.unpack_from(content, offset)
    if magic != MAGIC or len(content) < start + length:
        return None
    payload = content[start : start + length]
    return payload if xxhash.xxh3_64_intdigest(payload) == digest else None


def _open_or_create(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    flush_directory(path.parent)
    return descriptor


def _write_all(descriptor: int, content: bytearray, *, start: int) -> None:
    with memoryview(content) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(descriptor, view[done:], start + done)


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} cannot be written: {error.strerror}. Nothing is lost; free space and `rlhf resume` the job"
    )
