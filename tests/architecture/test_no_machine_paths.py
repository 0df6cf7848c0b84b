"""Nothing in the project names a directory of the machine it was written on, or a mirror that only exists there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "a directory of one machine": re.compile(r"(?<![\w.:/-])/(?:work|home|root|Users|mnt|opt)/\w"),
    "a package index": re.compile(r"--(?:extra-)?index-url|--trusted-host|pypi\.org|pythonhosted\.org|npmjs\.org"),
    "a private address": re.compile(r"\b(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}\b"),
}


def text_files() -> list[Path]:
    """What git knows or would take; everything outside the usual build outputs where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    if listed.returncode:
        paths = [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts)]
    return sorted(path for path in paths if path.is_file() and path != Path(__file__))


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names_one_machine(what):
    found = []
    for path in text_files():
        content = path.read_bytes()
        if b"\0" not in content:
            lines = content.decode("utf-8").splitlines()
            found += [
                f"{path.relative_to(ROOT)}:{n}: {line}"
                for n, line in enumerate(lines, 1)
                if FORBIDDEN[what].search(line)
            ]
    assert not found
