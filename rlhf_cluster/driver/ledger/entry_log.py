"""The log of a job's entries: one file a driver, `entries-000002.log`, that begins with all its predecessors wrote.

A driver writes no file that another one made. So one that was taken over from, and does not know it yet, can spoil
nothing: what it still writes goes to a file that nobody reads any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rlhf_cluster.driver.ledger import entry_bytes
from rlhf_cluster.driver.ledger.append_log import AppendLog, flush_directory, frames, whole_length
from rlhf_cluster.errors import StorageError
from rlhf_cluster.records.ledger import Entry

PATTERN = "entries-[0-9]*.log"


class EntryLog:
    """The entries of one driver, `epoch`, which it alone writes."""

    def __init__(self, directory: Path, *, epoch: int) -> None:
        """Raises `LedgerCorrupt` or `StorageError`; the predecessor's file is there until the new one is whole."""
        self._path = directory / f"entries-{epoch:06d}.log"
        newest = newest_file(directory)
        if newest and newest != self._path:
            content = newest.read_bytes()
            self._replace(content[: whole_length(newest, content)])
        self._log = AppendLog(self._path)
        for old in [*directory.glob(PATTERN), *directory.glob(f".{PATTERN}.new")]:
            if old.name < self._path.name:
                old.unlink(missing_ok=True)

    def append(self, entry: Entry) -> None:
        self._log.append(entry_bytes.encode(entry))

    def commit(self) -> None:
        self._log.commit()

    def entries(self) -> list[Entry]:
        """All of them, oldest first."""
        return [entry_bytes.decode(payload) for _, payload in self._log.records()]

    def rewrite(self, entries: Iterable[Entry]) -> None:
        """Hold these from now on and no others. A crash at any point leaves the old file or the new one, whole."""
        self._log.commit()
        aside = _aside(self._path)
        aside.unlink(missing_ok=True)
        new = AppendLog(aside)
        try:
            for entry in entries:
                new.append(entry_bytes.encode(entry))
            new.commit()
        finally:
            new.close()
        _rename(aside, self._path)
        self._log.close()
        self._log = AppendLog(self._path)

    def close(self) -> None:
        self._log.close()

    def _replace(self, content: bytes) -> None:
        aside = _aside(self._path)
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"{aside} cannot be written: {error.strerror}. Nothing is lost; free space") from error
        _rename(aside, self._path)


def read_entries(directory: Path) -> list[Entry]:
    """The entries of a job that may be running; nothing is written. None of them without a ledger."""
    path = newest_file(directory)
    if path is None:
        return []
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # a driver has just taken over and begun a file of its own
        return read_entries(directory)
    whole_length(path, content)
    return [entry_bytes.decode(payload) for _, payload in frames(content)]


def newest_file(directory: Path) -> Path | None:
    return max(directory.glob(PATTERN), default=None)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _rename(aside: Path, path: Path) -> None:
    try:
        aside.replace(path)
        flush_directory(path.parent)
    except OSError as error:
        raise StorageError(f"{path} cannot be replaced: {error.strerror}") from error
