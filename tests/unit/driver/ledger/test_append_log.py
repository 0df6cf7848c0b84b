from __future__ import annotations

import subprocess
import sys

import pytest

from rlhf_cluster.driver.ledger.append_log import BUFFER_BYTES, HEADER, AppendLog
from rlhf_cluster.errors import LedgerCorrupt, StorageError

PAYLOADS = [b"first", b"", b"the third, a little longer", bytes(range(256))]


@pytest.fixture
def path(tmp_path):
    log = AppendLog(tmp_path / "some.log")
    for payload in PAYLOADS:
        log.append(payload)
    log.close()
    return tmp_path / "some.log"


def payloads(path):
    log = AppendLog(path)
    found = [payload for _, payload in log.records()]
    log.close()
    return found


def test_records_come_back_in_order_and_by_offset(path):
    log = AppendLog(path)
    offset = log.append(b"one more")
    assert log.read(offset) == b"one more"
    assert [payload for _, payload in log.records()] == [*PAYLOADS, b"one more"]
    assert [log.read(offset) for offset, _ in log.records()] == [*PAYLOADS, b"one more"]
    log.close()
    log.close()


def test_records_wait_in_memory_until_they_are_committed_or_many(tmp_path):
    path = tmp_path / "some.log"
    log = AppendLog(path)
    log.append(b"x")
    assert path.stat().st_size == 0
    log.commit()
    assert path.stat().st_size == HEADER.size + 1
    log.append(bytes(BUFFER_BYTES))
    assert path.stat().st_size == 2 * HEADER.size + 1 + BUFFER_BYTES
    log.close()


def test_a_file_cut_at_any_byte_opens_with_the_records_before_the_cut_and_goes_on(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        log = AppendLog(path)
        found = [payload for _, payload in log.records()]
        assert found == PAYLOADS[: len(found)]
        log.append(b"after")
        log.close()
        assert payloads(path) == [*found, b"after"]


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"garbage", HEADER.pack(b"\xf5RL\xfe", 2**31, 0)])
def test_a_tail_that_is_no_record_is_cut_off(path, tail):
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert payloads(path) == PAYLOADS
    assert path.read_bytes() == whole


def test_any_flipped_byte_before_the_last_record_is_corruption_and_says_where(path):
    whole = path.read_bytes()
    for place in range(len(whole) - HEADER.size - len(PAYLOADS[-1])):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(LedgerCorrupt, match=rf"{path} is damaged at byte \d+"):
            AppendLog(path)
        assert len(path.read_bytes()) == len(whole), "what is damaged is left as it is"


def test_reading_where_no_record_begins_is_refused(path):
    log = AppendLog(path)
    for offset in (1, 10_000):
        with pytest.raises(LedgerCorrupt, match=f"at byte {offset}"):
            log.read(offset)
    log.close()


def test_a_directory_that_is_not_there_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"cannot be written.*free space and `rlhf resume`"):
        AppendLog(tmp_path / "nowhere" / "some.log")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from rlhf_cluster.driver.ledger.append_log import AppendLog
from rlhf_cluster.errors import StorageError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = AppendLog(Path(sys.argv[1]))
log.append(b"a" * 900)
log.commit()
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
log.append(b"b" * 900)
try:
    log.commit()
except StorageError as error:
    print(error)
print(Path(sys.argv[1]).stat().st_size)
if sys.argv[2] == "free":
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.append(b"c" * 900)
    log.commit()
log.close()
"""


@pytest.mark.parametrize(("then", "expected"), [("free", b"abc"), ("end", b"a")])
def test_a_full_disk_loses_nothing_and_leaves_no_half_record(tmp_path, then, expected):
    path = tmp_path / "some.log"
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), then], capture_output=True, text=True, timeout=60, check=True
    )
    message, size = child.stdout.splitlines()
    assert "cannot be written: File too large. Nothing is lost" in message
    assert int(size) == HEADER.size + 900
    assert [payload[:1] for payload in payloads(path)] == [bytes([each]) for each in expected]
