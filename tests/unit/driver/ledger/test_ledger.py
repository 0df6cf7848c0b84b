from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rlhf_cluster.driver.ledger import Ledger, read_history
from rlhf_cluster.errors import Fenced, LedgerCorrupt, StorageError
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.records import Batch
from rlhf_cluster.testing.groups import make_group


def same(one, other):
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in dataclasses.fields(one)
        if isinstance(getattr(one, field.name), np.ndarray)
    )


def names(job_dir, pattern="*"):
    return sorted(path.name for path in (job_dir / "ledger").glob(pattern))


def test_what_was_said_is_there_after_a_resume(small_job, tmp_path):
    job = small_job(tmp_path)
    job.resume()
    for _ in range(3):
        job.step()
    job.ledger.close()
    again = small_job(tmp_path).ledger.history
    assert (again.step, again.next_request_id, again.last_epoch) == (3, 9, 1)
    assert again.violations == []
    assert audit(again, max_staleness=0, num_steps=3).ok


def test_the_groups_of_a_step_come_back_as_they_were_handed_in(small_job, tmp_path):
    job = small_job(tmp_path)
    job.step()
    job.step()
    job.ledger.close()
    ledger = small_job(tmp_path).ledger
    groups = ledger.groups(1)
    assert [group.request_id for group in groups] == [4, 5]
    expected = dataclasses.replace(make_group([3, 2], request_id=4, version=1, num_prompt_tokens=2), advantages=None)
    assert same(groups[0], expected)
    assert groups[0].advantages is None
    assert ledger.digest(1) == job.ledger.digest(1)


def test_a_batch_that_was_never_accepted_has_no_groups(small_job, tmp_path):
    with pytest.raises(StorageError, match=r"no batch of step 4: it was never accepted"):
        small_job(tmp_path).ledger.groups(4)


def test_a_step_whose_segment_is_gone_is_named(small_job, tmp_path):
    job = small_job(tmp_path)
    job.step()
    job.ledger.close()
    (tmp_path / "ledger" / "rollouts-000001.log").unlink()
    with pytest.raises(StorageError, match=r"groups of step 0 are gone.*rollouts-000001.log"):
        small_job(tmp_path).ledger.groups(0)


def test_a_damaged_group_of_an_accepted_step_is_corruption(small_job, tmp_path):
    job = small_job(tmp_path)
    job.step()
    job.ledger.close()
    path = tmp_path / "ledger" / "rollouts-000001.log"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    with pytest.raises(LedgerCorrupt, match=r"rollouts-000001.log holds no whole record at byte 0"):
        small_job(tmp_path).ledger.groups(0)


def test_a_completed_group_can_be_had_before_it_is_accepted_and_unless_it_is_torn(small_job, tmp_path):
    job = small_job(tmp_path)
    job.ledger.dispatched([0, 1], worker_id="rollout-0", version=0)
    job.ledger.completed(make_group([3], request_id=0), workers=("rollout-0",))
    assert job.ledger.group(0).request_id == 0
    assert job.ledger.group(1) is job.ledger.group(2) is None
    job.ledger.close()
    with (tmp_path / "ledger" / "rollouts-000001.log").open("r+b") as segment:
        segment.truncate(100)
    ledger = small_job(tmp_path).ledger
    assert ledger.history.completed_unaccepted == (0,)
    assert ledger.group(0) is None


def test_an_accepted_batch_is_on_the_disk_before_anything_else_happens(small_job, tmp_path):
    job = small_job(tmp_path)
    job.step()
    assert read_history(tmp_path).step == 1
    job.ledger.dispatched([3], worker_id="rollout-0", version=1)
    assert read_history(tmp_path).outstanding == (), "dispatches wait in memory"


def test_a_driver_that_was_replaced_can_accept_and_settle_nothing_and_spoils_nothing(small_job, tmp_path):
    old = small_job(tmp_path)
    old.step()
    new = small_job(tmp_path)
    new.resume()
    new.step()
    for _ in range(500):  # so many that they leave the memory of the old driver
        old.ledger.dispatched(range(50), worker_id="rollout-0", version=1)
    with pytest.raises(Fenced, match=r"driver 1 .* was replaced by driver 2"):
        old.ledger.accept(Batch(step=1, groups=()))
    with pytest.raises(Fenced):
        old.ledger.saved(1, "step-000001")
    with pytest.raises(Fenced):
        old.ledger.forget_before(1)
    with pytest.raises(Fenced):
        old.ledger.opened(1, ())
    old.ledger.close()
    new.step()
    new.ledger.close()
    history = read_history(tmp_path)
    assert (history.step, history.violations) == (3, [])


def test_every_driver_writes_files_of_its_own(small_job, tmp_path):
    for _ in range(3):
        job = small_job(tmp_path)
        job.resume()
        job.step()
        job.ledger.close()
    assert names(tmp_path) == [
        "entries-000003.log", "rollouts-000001.log", "rollouts-000002.log", "rollouts-000003.log"
    ]  # fmt: skip
    assert [group.request_id for step in range(3) for group in small_job(tmp_path).ledger.groups(step)] == [
        1, 2, 4, 5, 7, 8
    ]  # fmt: skip


def test_forgetting_deletes_the_segments_that_nobody_needs_and_keeps_the_proof(small_job, tmp_path):
    job = small_job(tmp_path)
    job.resume()
    for _ in range(4):
        job.step()
        job.step()
        job.checkpoint(forget_before=job.ledger.history.step - 2)
    assert names(tmp_path, "rollouts-*") == ["rollouts-000004.log", "rollouts-000005.log"]
    assert len(job.ledger.groups(6)) == 2
    with pytest.raises(StorageError, match="it is settled"):
        job.ledger.groups(5)
    job.ledger.close()
    history = read_history(tmp_path)
    report = audit(history, max_staleness=0)
    assert report.ok
    assert (report.num_steps, report.num_settled_steps, report.num_trained) == (8, 6, 16)
    assert history.violations == small_job(tmp_path).ledger.history.violations == []


def test_a_job_goes_on_after_forgetting_as_if_nothing_were_forgotten(small_job, tmp_path):
    job = small_job(tmp_path)
    job.step()
    job.checkpoint(forget_before=1)
    job.step()
    job.ledger.close()
    again = small_job(tmp_path)
    again.resume()
    again.step()
    assert audit(again.ledger.history, max_staleness=0).num_trained == 6
    assert audit(again.ledger.history, max_staleness=0).ok


def test_a_job_without_a_ledger_has_an_empty_history(tmp_path):
    assert read_history(tmp_path).step == 0


def test_a_ledger_that_cannot_be_made_is_a_storage_error(small_job, tmp_path):
    job = small_job(tmp_path)
    (tmp_path / "other").write_text("a file where the job should be")
    with pytest.raises(StorageError, match="cannot be made"):
        Ledger.open(tmp_path / "other", claim=job.claim, clock=job.ledger._clock)
