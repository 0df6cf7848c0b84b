"""Small files that other processes read at any moment: they see the old content or the new one, never half of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 4 * 1024 * 1024


def write_whole(path: Path, text: str) -> None:
    """Write aside, in the same directory, then rename. A leading dot marks what is aside; a kill may leave it there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def read_small(path: Path) -> str:
    """The content of a file that anybody may have put there. Raises `OSError`, and `ValueError` for what is no small
    text file: a link, a pipe or a device is not followed and not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    return content.decode("utf-8")
