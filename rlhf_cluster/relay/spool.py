"""The job's directory as a spool: what of its journal, logs and samples the service does not have yet.

The driver writes its files whether or not anybody reads them, so nothing is buffered here and nothing is lost while the
service is away. Reading does not move a position; only what the service has taken in does. A line that is not whole
yet waits.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_cluster.wire.relay import LogLine

MAX_LINE_BYTES = 8192
"""A longer line of a log is sent in pieces of this size."""
MAX_NAME = 64
"""Characters of a component's name; a file with a longer one is none of ours."""


class JournalSpool:
    """Entries by number, counted over the whole job: an entry's number is that of its line.

    Where the file holds fewer lines than the service has, a machine that crashed has lost the last ones, and the lines
    that come then are numbered after those that the service has.
    """

    def __init__(self, path: Path, *, num_entries: int) -> None:
        """`num_entries` are not read again."""
        self._path = path
        self._lost = 0
        """Entries that the service has and the file has not."""
        self._ends: list[int] = []
        """Where the lines end that were read last."""
        self.is_full = False
        """Whether the last `read` ended at a bound, so that there may be more."""
        self._seek(num_entries)

    @property
    def number(self) -> int:
        """Of the next entry that the service does not have."""
        return self._number

    def read(self, *, max_entries: int, max_bytes: int) -> list[dict[str, Any]]:
        """The next entries; at least one, if there is a whole one."""
        if _size(self._path) < self._byte:  # a driver that resumes cuts off no whole line, but a person may
            self._seek(self._number)
        self._ends, self.is_full = [], False
        entries: list[dict[str, Any]] = []
        for line, end in _whole_lines(self._path, self._byte):
            entries.append(_parse(line, number=self._number + len(entries)))
            self._ends.append(end)
            self.is_full = len(entries) == max_entries or end - self._byte >= max_bytes
            if self.is_full:
                break
        return entries

    def go_to(self, number: int) -> None:
        """The service has the entries before `number`; fewer than it had, where an old copy of its database came
        back."""
        num_taken = number - self._number
        if 0 < num_taken <= len(self._ends):
            self._number, self._byte = number, self._ends[num_taken - 1]
        elif num_taken:
            self._seek(number)
        self._ends = []

    def _seek(self, number: int) -> None:
        self._lost = min(self._lost, number)
        at, self._byte = self._lost, 0
        lines = _whole_lines(self._path, 0)
        while at < number and (line := next(lines, None)):
            at, self._byte = at + 1, line[1]
        self._lost += number - at
        self._number = number


class LogSpool:
    """Lines of `logs/*.log`, by component and the byte at which they begin."""

    def __init__(self, log_dir: Path, *, newest: Mapping[str, int]) -> None:
        """`newest` is where the newest line begins that the service has."""
        self._log_dir = log_dir
        self.is_full = False
        """Whether the last `read` ended at a bound, so that there may be more."""
        self._next = {component: self._after(component, offset) for component, offset in newest.items()}

    def read(self, *, max_lines: int, max_bytes: int, now_s: float, is_final: bool = False) -> list[LogLine]:
        """The next lines of all components. `is_final` takes a last line without an end too: no more comes to it."""
        lines: list[LogLine] = []
        left_bytes, self.is_full = max_bytes, False
        for component in self._components():
            offset = self._next.get(component, 0)
            for piece in _pieces(self._path(component), offset, is_final=is_final):
                self.is_full = len(lines) == max_lines or left_bytes <= 0
                if self.is_full:
                    return lines
                lines.append(LogLine(component=component, offset=offset, line=_shown(piece), time_s=now_s))
                offset, left_bytes = offset + len(piece), left_bytes - len(piece)
        return lines

    def taken(self, lines: Iterable[LogLine]) -> None:
        """The service has these lines, which were read last."""
        newest = {line.component: line.offset for line in lines}
        self._next |= {component: self._after(component, offset) for component, offset in newest.items()}

    def _components(self) -> list[str]:
        if not self._log_dir.is_dir():
            return []
        return sorted(path.stem for path in self._log_dir.glob("*.log") if len(path.stem) <= MAX_NAME)

    def _path(self, component: str) -> Path:
        return self._log_dir / f"{component}.log"

    def _after(self, component: str, offset: int) -> int:
        """Where the piece ends that begins at `offset`."""
        return offset + len(next(_pieces(self._path(component), offset, is_final=True), b""))


class SampleSpool:
    """Files of `samples/`, each sent once as a whole: the driver renames them into place."""

    def __init__(self, directory: Path, *, names: Iterable[str]) -> None:
        """`names` are those that the service has."""
        self._directory = directory
        self._done = set(names)
        self._found: deque[Path] = deque()
        """Those of the last look into the directory that are not done, in order."""

    def next(self) -> Path | None:
        """The next file that is not done."""
        if not self._found and self._directory.is_dir():
            every = sorted(self._directory.glob("[!.]*.parquet"))
            self._found.extend(path for path in every if path.name not in self._done)
        return self._found[0] if self._found else None

    def done(self, path: Path) -> None:
        """The one that is next."""
        assert self._found.popleft() == path
        self._done.add(path.name)


def last_lines(path: Path, *, num_lines: int, num_bytes: int = 64 * 1024) -> list[str]:
    """The end of a log, without empty lines; empty where there is none."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, _size(path) - num_bytes))
        lines = [_shown(line) for line in file.read().splitlines()]
    return [line for line in lines if line.strip()][-num_lines:]


def _whole_lines(path: Path, offset: int) -> Iterator[tuple[bytes, int]]:
    """Lines with an end, from `offset` on, each with the offset of its end."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            yield line, offset


def _pieces(path: Path, offset: int, *, is_final: bool) -> Iterator[bytes]:
    """Lines, and pieces of lines that are too long."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(offset)
        while piece := file.readline(MAX_LINE_BYTES):
            if not (is_final or piece.endswith(b"\n") or len(piece) == MAX_LINE_BYTES):
                return
            yield piece


def _shown(piece: bytes) -> str:
    """What a terminal would show at the end of it: of a progress bar only the newest state."""
    text = piece.decode("utf-8", "replace").rstrip("\r\n")
    return text.rsplit("\r", 1)[-1]


def _parse(line: bytes, *, number: int) -> dict[str, Any]:
    """A line that a failing disk has damaged becomes a notice: what comes after it counts on."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if isinstance(entry, dict) and isinstance(entry.get("event"), str):
        return entry
    text = f"line {number + 1} of the journal cannot be read"
    return {"event": "Notice", "time_s": 0.0, "step": 0, "level": "warning", "text": text}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
