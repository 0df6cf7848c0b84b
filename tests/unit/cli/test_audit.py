"""`rlhf audit` on ledgers written by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.ledger import entry_log
from rlhf_cluster.driver.ledger.rollout_log import RolloutLog
from rlhf_cluster.records.ledger import Completed, Dispatched, Learned
from rlhf_cluster.testing import make_group, make_job
from rlhf_cluster.testing.ledger_story import STAMP, WORKER, ledger_story


@pytest.fixture
def job_dir(tmp_path):
    """A job of which four steps are done."""
    job = make_job(["train.num_steps=4"])
    (tmp_path / "job.json").write_text(job.model_dump_json())
    write(tmp_path, ledger_story(num_steps=4))
    return tmp_path


def write(job_dir, entries):
    (job_dir / "ledger").mkdir(exist_ok=True)
    log = entry_log.EntryLog(job_dir / "ledger", epoch=Claim.take(job_dir, take_over=True).epoch)
    rollouts = RolloutLog(job_dir / "ledger")
    for entry in entries:
        if isinstance(entry, Completed):
            place = rollouts.append(make_group([3, 2], request_id=entry.request_id))
            entry = dataclasses.replace(entry, place=place)
        log.append(entry)
    rollouts.close()
    log.close()


def test_the_proof_of_a_good_job_fits_one_page_and_exits_0(rlhf, job_dir):
    code, out, _ = rlhf("audit", str(job_dir))
    assert code == 0
    assert "OK: all 12 checks" in out
    assert "FAILED" not in out
    for words in ("dropped: all rewards failed", "4 accepted, 0 of them settled", "1: rollout-0", "1: epochs 1"):
        assert words in out
    assert len(out.splitlines()) <= 50


def test_the_proof_as_json_says_the_same(rlhf, job_dir):
    code, out, _ = rlhf("audit", str(job_dir), "-o", "json")
    report = json.loads(out)
    assert (code, report["ok"], report["num_trained"]) == (0, True, 8)
    assert {check["ok"] for check in report["checks"]} == {True}
    assert report["staleness"] == {"0": 4}


def test_batches_that_could_not_be_replayed_are_told(rlhf, job_dir):
    for log in (job_dir / "ledger").glob("rollouts-*.log"):
        log.unlink()
    code, out, _ = rlhf("audit", str(job_dir))
    assert code == 1
    assert "FAILED: 1 of 12 checks" in out
    assert "the groups of step 0 are gone" in out


def test_a_job_that_lost_something_exits_1_and_says_what(rlhf, job_dir):
    again = Learned(step=1, version=2, loss=(2.0).hex(), **STAMP)
    write(job_dir, [Dispatched(request_ids=(20,), worker_id=WORKER, version=4, **STAMP), again])
    code, out, _ = rlhf("audit", str(job_dir))
    assert code == 1
    assert "FAILED: 2 of 12 checks" in out
    assert "requests 12 to 19 are nowhere" in out
    assert "step 1 had loss 0x1.0000000000000p+0 and when replayed 0x1.0000000000000p+1" in out


def test_a_damaged_ledger_is_a_failure_that_names_the_file(rlhf, job_dir):
    path = max((job_dir / "ledger").glob("entries-*"))
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    code, _, err = rlhf("audit", str(job_dir))
    assert code == 1
    assert path.name in err


@pytest.mark.parametrize("missing", ["job.json", "ledger"])
def test_what_is_not_there_is_not_found(rlhf, tmp_path, missing):
    if missing == "ledger":
        (tmp_path / "job.json").write_text("{}")
    code, _, err = rlhf("audit", str(tmp_path))
    assert code == 3
    assert missing in err
