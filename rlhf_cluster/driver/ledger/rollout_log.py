"""The log of completed groups, in segments: `rollouts-000007.log`. A segment is deleted when nobody needs it any more.

Every driver begins a segment of its own, so a torn end is never written over and an offset means one thing for ever.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path

from rlhf_cluster.driver.ledger import group_bytes
from rlhf_cluster.driver.ledger.append_log import AppendLog, flush_directory, read_record
from rlhf_cluster.errors import StorageError
from rlhf_cluster.records import RolloutGroup


def read_group(directory: Path, place: tuple[int, int]) -> RolloutGroup:
    """Raises `LedgerCorrupt` when the group is torn, `FileNotFoundError` when its segment is gone."""
    segment, offset = place
    return group_bytes.decode(read_record(_path(directory, segment), offset))


class RolloutLog:
    def __init__(self, directory: Path, *, after: int = 0) -> None:
        """Segments up to `after` have been used, there or not. Raises `StorageError` when it cannot be written."""
        self._directory = directory
        self._after = after
        self._segment, self._log = self._begin()

    def append(self, group: RolloutGroup) -> tuple[int, int]:
        """Returns its place: (segment, first byte)."""
        return self._segment, self._log.append(group_bytes.encode(group))

    def commit(self) -> None:
        self._log.commit()

    def read(self, place: tuple[int, int]) -> RolloutGroup:
        """Raises `LedgerCorrupt` when the group is torn, `FileNotFoundError` when its segment is gone."""
        segment, offset = place
        if segment == self._segment:
            return group_bytes.decode(self._log.read(offset))
        return read_group(self._directory, place)

    def start_segment(self) -> None:
        """Groups go to a new file from now on, unless this one is empty; what lies in it is on the disk."""
        self._log.commit()
        if not self._path(self._segment).stat().st_size:
            return
        before = self._log
        self._segment, self._log = self._begin()
        before.close()

    def keep_only(self, needed: Collection[int]) -> None:
        """Delete every segment that is not `needed` and not the one being written."""
        for segment in self.segments():
            if segment < self._segment and segment not in needed:
                self._path(segment).unlink(missing_ok=True)

    def segments(self) -> list[int]:
        return sorted(int(path.stem.partition("-")[2]) for path in self._directory.glob("rollouts-[0-9]*.log"))

    def close(self) -> None:
        self._log.close()

    def _begin(self) -> tuple[int, AppendLog]:
        """The next free number, which nobody else can have taken, not even a driver that was replaced."""
        for segment in itertools.count(max([self._after, *self.segments()]) + 1):
            try:
                self._path(segment).touch(exist_ok=False)
            except FileExistsError:
                continue
            except OSError as error:
                raise StorageError(f"{self._path(segment)} cannot be made: {error.strerror}") from error
            flush_directory(self._directory)
            return segment, AppendLog(self._path(segment))
        raise AssertionError("numbers do not end")

    def _path(self, segment: int) -> Path:
        return _path(self._directory, segment)


def _path(directory: Path, segment: int) -> Path:
    return directory / f"rollouts-{segment:06d}.log"
