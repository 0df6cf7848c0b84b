"""A job's own code comes once, whole, and only if it is the code that was submitted."""

from __future__ import annotations

import asyncio
import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from rlhf_cluster.relay import bundle
from rlhf_cluster.relay.link import Link, Refused

from .stand_in import Said, StandIn


def packed(**files: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.py", text)
    return content.getvalue()


def fetch(url: str, job_dir: Path, sha256: str) -> Path:
    async def whole() -> Path:
        async with Link(url, token="secret", num_tries=1) as link:
            return await bundle.fetch(link, job_dir, sha256=sha256)

    return asyncio.run(whole())


def test_code_is_unpacked_once_and_nothing_else_is_left(tmp_path, stand_in: StandIn):
    content = packed(mine="WORTH = 1")
    digest = hashlib.sha256(content).hexdigest()
    stand_in.says_in_turn(Said(200, content))
    directory = fetch(stand_in.url, tmp_path, digest)
    assert (directory / "mine.py").read_text() == "WORTH = 1"
    assert fetch(stand_in.url, tmp_path, digest) == directory
    assert len(stand_in.asked) == 1
    assert list(tmp_path.iterdir()) == [directory]


def test_other_code_than_what_was_submitted_is_refused_and_not_unpacked(tmp_path, stand_in: StandIn):
    stand_in.says_in_turn(Said(200, packed(mine="WORTH = 2")))
    with pytest.raises(Refused, match="SHA-256"):
        fetch(stand_in.url, tmp_path, "0" * 64)
    assert list(tmp_path.iterdir()) == []
