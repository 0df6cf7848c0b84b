"""A ledger after a crash at any point: it opens, it is a beginning of what was said, and the job goes on with it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from rlhf_cluster.driver.claim import Claim, current_driver
from rlhf_cluster.driver.ledger import Ledger, read_history
from rlhf_cluster.driver.ledger.append_log import frames
from rlhf_cluster.errors import LedgerCorrupt, StorageError
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import FakeClock
from rlhf_cluster.testing.groups import make_group

CRASH = """
import os, sys
from pathlib import Path
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.clock import SystemClock
from rlhf_cluster.driver.ledger import Ledger

job_dir, at, verb = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def die_at(number):
    left = [number]
    def hook(event, arguments):
        if event in ("open", "os.rename", "os.remove", "os.truncate") and str(job_dir) in str(arguments[0]):
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
    sys.addaudithook(hook)

claim = Claim.take(job_dir, take_over=True)
if verb == "open":
    die_at(at)
ledger = Ledger.open(job_dir, claim=claim, clock=SystemClock())
if verb == "forget":
    ledger.opened(ledger.history.step, ())
    die_at(at)
    ledger.forget_before(3)
os._exit(0)
"""


@pytest.fixture
def job_dir(small_job, tmp_path):
    """A job of four steps in two segments."""
    job = small_job(tmp_path / "job")
    job.resume()
    for step in range(4):
        job.step()
        if step == 1:
            job.checkpoint(forget_before=1)
    job.ledger.close()
    return tmp_path / "job"


def test_the_entries_cut_at_any_byte_are_a_beginning_of_the_job_and_it_goes_on(small_job, job_dir):
    path = max((job_dir / "ledger").glob("entries-*"))
    whole = path.read_bytes()
    before = [payload for _, payload in frames(whole)]
    starts = [offset for offset, _ in frames(whole)]
    steps = set()
    # Every cut of the last batch's acceptance and what follows; before it, at and around where entries begin.
    cuts = {start + near for start in starts[-14:-2] for near in (-1, 0, 1)} | {*range(starts[-2], len(whole))}
    for length in sorted(cuts):
        path.write_bytes(whole[:length])
        ledger = _open_again(job_dir)
        found = [payload for _, payload in frames(path.read_bytes())]
        assert found == before[: len(found)]
        assert ledger.history.violations == []
        ledger.dispatched([100], worker_id="rollout-0", version=9)
        ledger.close()
        assert 100 in read_history(job_dir).outstanding
        steps.add(ledger.history.step)
    assert steps == {2, 3, 4}
    path.write_bytes(whole[: starts[-1] - 1])
    job = small_job(job_dir)
    job.resume()
    job.step()
    assert audit(job.ledger.history, max_staleness=0).ok


def test_the_rollouts_cut_at_any_byte_never_raise(job_dir):
    path = job_dir / "ledger" / "rollouts-000002.log"
    whole = path.read_bytes()
    entries = max((job_dir / "ledger").glob("entries-*"))
    content = entries.read_bytes()
    accepted = next(
        offset for offset, payload in frames(content) if b'"Accepted"' in payload and b'"step":3' in payload
    )
    entries.write_bytes(content[:accepted])
    for length in range(0, len(whole), 17):
        path.write_bytes(whole[:length])
        ledger = _open_again(job_dir)
        found = [ledger.group(each) for each in ledger.history.completed_unaccepted]
        ledger.close()
        assert len(found) == 2
    assert found[0].request_id == 10


def test_a_flipped_byte_before_the_tail_is_told_and_nothing_is_touched(job_dir):
    path = max((job_dir / "ledger").glob("entries-*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    for read in (lambda: read_history(job_dir), lambda: _open_anew(job_dir)):
        with pytest.raises(LedgerCorrupt, match=path.name):
            read()
    assert len(path.read_bytes()) == len(whole)


@pytest.mark.parametrize("verb", ["open", "forget"])
def test_a_crash_at_any_step_of_taking_over_or_settling_loses_nothing(job_dir, tmp_path, verb):
    expected = read_history(job_dir)
    for at in range(100):
        copy = tmp_path / f"crash-{at}"
        shutil.copytree(job_dir, copy)
        code = subprocess.run(
            [sys.executable, "-c", CRASH, str(copy), str(at), verb], timeout=60, check=False
        ).returncode
        assert code in (0, 9)
        ledger = _open_anew(copy)
        assert (ledger.history.step, ledger.history.next_request_id) == (expected.step, expected.next_request_id)
        report = audit(ledger.history, max_staleness=0, num_steps=4)
        assert report.ok
        assert (report.num_trained, report.num_dropped) == (8, {"flat": 4})
        assert [group.request_id for group in ledger.groups(3)] == [10, 11]
        ledger.close()
        if code == 0:
            break
    assert 3 < at < 99


def _run_on(job):
    for _ in range(1_000):
        job.step()


def _open_again(job_dir):
    """Under the claim that there is."""
    return Ledger.open(job_dir, claim=Claim(job_dir / "epochs", current_driver(job_dir)), clock=FakeClock())


def _open_anew(job_dir):
    return Ledger.open(job_dir, claim=Claim.take(job_dir, take_over=True), clock=FakeClock())


def test_a_batch_whose_groups_found_no_room_was_never_accepted(small_job, tmp_path):
    job = small_job(tmp_path)
    job.resume()
    job.step()
    job.publish(1)
    job.ledger.dispatched([3], worker_id="rollout-0", version=1)
    large = replace(make_group([1_000, 1_000], request_id=3, version=1), advantages=None)
    job.ledger.completed(large, workers=("rollout-0",))
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for the entries, and none for the groups.
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, allowed[1]))
    try:
        with pytest.raises(StorageError, match="Nothing is lost"):
            job.ledger.accept(Batch(step=1, groups=(large,)))
        job.ledger.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    again = small_job(tmp_path)
    assert again.ledger.history.step == 1
    again.resume()
    again.step()
    assert len(again.ledger.groups(1)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_job_whose_disk_is_full_goes_on_where_it_was_when_there_is_space(small_job, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(64 * 1024))
        job = small_job(disk)
        job.resume()
        with pytest.raises(StorageError, match=r"No space left on device\. Nothing is lost"):
            _run_on(job)
        num_steps = read_history(disk).step
        job.ledger.close()
        assert num_steps > 0
        ballast.unlink()
        again = small_job(disk)
        assert again.ledger.history.step == num_steps
        again.resume()
        again.step()
        assert audit(again.ledger.history, max_staleness=0).ok
        again.ledger.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
