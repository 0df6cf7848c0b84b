"""A directory of code as a zip file."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile

import pytest

from rlhf_cluster.client import bundle
from rlhf_cluster.errors import ConfigError
from rlhf_cluster.service.bundles import check


@pytest.fixture
def code(tmp_path):
    directory = tmp_path / "code"
    (directory / "pkg" / "__pycache__").mkdir(parents=True)
    (directory / "pkg" / "__pycache__" / "x.pyc").write_bytes(b"\0")
    (directory / "pkg" / "reward.py").write_text("x = 1\n")
    (directory / "a.py").write_text("y = 2\n")
    return directory


def test_the_same_files_are_the_same_bytes_whenever_they_were_written(code):
    first = bundle.pack(code)
    os.utime(code / "a.py", (0, 0))
    assert bundle.pack(code) == first
    assert hashlib.sha256(first.content).hexdigest() == first.sha256
    assert zipfile.ZipFile(io.BytesIO(first.content)).namelist() == ["a.py", "pkg/reward.py"]


def test_what_is_packed_is_what_the_service_takes(code, tmp_path):
    path = tmp_path / "bundle.zip"
    path.write_bytes(bundle.pack(code).content)
    check(path, max_bytes=1000)


@pytest.mark.parametrize("target", ["a.py", "pkg"])
def test_a_symbolic_link_is_refused_by_name(code, target):
    (code / "link").symlink_to(code / target)
    with pytest.raises(ConfigError, match="link is a symbolic link"):
        bundle.pack(code)


def test_a_pipe_is_refused_and_not_waited_for(code):
    os.mkfifo(code / "pipe")
    with pytest.raises(ConfigError, match="no regular file"):
        bundle.pack(code)


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no file"):
        bundle.pack(tmp_path)
