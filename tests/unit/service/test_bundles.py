"""Bounds of a bundle that are too large to be uploaded in a test."""

from __future__ import annotations

import zipfile

import pytest

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.service import bundles


def test_a_member_that_grows_without_measure_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", b"\0" * (bundles.RATIO_FROM_BYTES + 1))
    with pytest.raises(ConfigError, match="grows more than 100 times"):
        bundles.check(tmp_path / "b.zip", max_bytes=2**30)


def test_more_files_than_a_project_has_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as made:
        for number in range(bundles.MAX_FILES + 1):
            made.writestr(str(number), b"")
    with pytest.raises(ConfigError, match="10001 files; it may have 10000"):
        bundles.check(tmp_path / "b.zip", max_bytes=2**30)


def test_an_encrypted_member_is_refused(tmp_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.py", b"x")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is encrypted"):
        bundles.check(path, max_bytes=2**30)
