from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlhf_cluster.driver.claim import Claim, current_driver
from rlhf_cluster.errors import ConfigError, Fenced

OTHER_DRIVER = """
import sys
from pathlib import Path
from rlhf_cluster.driver.claim import Claim
claim = Claim.take(Path(sys.argv[1]))
print(claim.epoch, flush=True)
sys.stdin.read(1)
try:
    claim.check()
    print("mine")
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture
def other(tmp_path):
    """A driver in a process of its own, its claim taken."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_DRIVER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "1\n"
    yield process
    process.kill()
    process.communicate(timeout=30)


def test_a_job_that_nobody_drives_has_no_driver(tmp_path):
    assert current_driver(tmp_path) is None


def test_a_job_that_another_process_drives_is_refused_and_says_which_and_what_to_do(other, tmp_path):
    with pytest.raises(ConfigError, match=rf"driven by process {other.pid} on .*`rlhf stop .*--take-over"):
        Claim.take(tmp_path)
    assert current_driver(tmp_path).is_alive


def test_a_driver_that_is_taken_over_from_finds_out(other, tmp_path):
    claim = Claim.take(tmp_path, take_over=True)
    claim.check()
    assert claim.epoch == 2
    assert other.communicate("go on", timeout=30)[0] == "Fenced\n"


def test_a_driver_that_is_left_alone_keeps_its_job(other):
    assert other.communicate("go on", timeout=30)[0] == "mine\n"


def test_the_job_of_a_killed_driver_can_be_taken_at_once(other, tmp_path):
    other.kill()
    other.wait(timeout=30)
    assert not current_driver(tmp_path).is_alive
    assert Claim.take(tmp_path).epoch == 2


def test_a_killed_driver_that_nobody_has_waited_for_is_dead_too(other, tmp_path):
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its exit code is not collected
    assert Claim.take(tmp_path).epoch == 2


def test_a_released_job_can_be_taken_and_the_old_claim_stays_fenced(tmp_path):
    first = Claim.take(tmp_path)
    with pytest.raises(ConfigError):
        Claim.take(tmp_path)
    first.release()
    first.check()
    assert current_driver(tmp_path).is_alive is False
    assert Claim.take(tmp_path).epoch == 2
    with pytest.raises(Fenced, match=r"driver 1 .* was replaced by driver 2"):
        first.check()


def rewritten(job_dir, **change):
    path = max((job_dir / "epochs").glob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_a_later_process_with_the_same_id_is_not_taken_for_the_driver(tmp_path):
    started_s = current_started_s(Claim.take(tmp_path), tmp_path)
    rewritten(tmp_path, process_started_s=started_s - 60)
    assert Claim.take(tmp_path).epoch == 2


def current_started_s(claim, job_dir):
    claim.check()
    return current_driver(job_dir).process_started_s


def test_a_driver_of_another_host_may_be_alive_unless_it_has_released_the_job(tmp_path):
    Claim.take(tmp_path)
    rewritten(tmp_path, host="elsewhere")
    assert current_driver(tmp_path).is_alive is None
    with pytest.raises(ConfigError, match=r"on elsewhere, since .*, and whether that is still alive .*--take-over"):
        Claim.take(tmp_path)
    rewritten(tmp_path, ended_s=1.0)
    assert Claim.take(tmp_path).epoch == 2
    rewritten(tmp_path, host="elsewhere")
    assert Claim.take(tmp_path, take_over=True).epoch == 3


def test_a_claim_torn_by_a_crash_is_nobodys(tmp_path):
    Claim.take(tmp_path)
    (tmp_path / "epochs" / "000001.json").write_text("")
    assert Claim.take(tmp_path).epoch == 2


def test_of_many_who_come_at_once_one_gets_the_job(tmp_path):
    def take(_):
        try:
            return Claim.take(tmp_path).epoch
        except ConfigError:
            return None

    with ThreadPoolExecutor(8) as pool:
        epochs = list(pool.map(take, range(8)))
    assert [epoch for epoch in epochs if epoch] == [1]
