"""A file of JSON objects, one a line, that only grows: what was appended stays, a line torn by a kill is cut off."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_cluster.driver.record_json import parse_object
from rlhf_cluster.errors import StorageError


class JsonLines:
    """One writer. Opening cuts off a torn last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(path)
        # A completion can hold a lone surrogate, which UTF-8 cannot.
        self._file = path.open("a", encoding="utf-8", errors="replace")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Oldest first. Raises `StorageError` for a line that is no object."""
        with self.path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield parse_object(line)
                except ValueError as error:
                    raise StorageError(
                        f"{self.path} line {number} is damaged ({error}): this is no torn end. Remove the line, and "
                        "`rlhf resume` makes it again"
                    ) from error

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Returns when they are on the disk. Raises `StorageError`."""
        text = "".join(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        try:
            self._file.write(text)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written: {error.strerror}. What is in it is kept; free space and "
                "`rlhf resume` the job"
            ) from error

    def close(self) -> None:
        self._file.close()


def plain(value: Any) -> Any:
    """What JSON can hold of a value: arrays as lists, NaN and infinities as null, what it has no word for as text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def cut_torn_line(path: Path) -> None:
    """End the file with its last whole line; a file that is not there is left so."""
    if not path.exists():
        return
    whole = path.read_bytes().rpartition(b"\n")
    if whole[2]:
        with path.open("r+b") as file:
            file.truncate(len(whole[0]) + len(whole[1]))
