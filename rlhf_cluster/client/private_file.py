"""Files that only their owner may read: tokens, and what `rlhf up` remembers."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(path: Path, content: str) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    aside.replace(path)


def read_private(path: Path) -> str | None:
    """None where there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def private_dir(path: Path) -> Path:
    """Made for its owner alone; one that is there already is left as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
