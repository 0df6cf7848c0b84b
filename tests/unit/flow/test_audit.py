"""Every check finds the violation that it is there for, and nothing else cries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlhf_cluster.flow import audit as audits
from rlhf_cluster.flow import history as checks
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.flow.history import History
from rlhf_cluster.flow.settle import settle
from rlhf_cluster.records.ledger import (
    Accepted,
    Completed,
    Dispatched,
    Dropped,
    Learned,
    Lost,
    Opened,
    Proved,
    Published,
)
from rlhf_cluster.testing.ledger_story import STAMP, WORKER, completed, ledger_story


def failed(entries, *, max_staleness=0, num_steps=3):
    report = audit(History(entries), max_staleness=max_staleness, num_steps=num_steps)
    assert report.ok == all(check.ok for check in report.checks)
    return {check.name for check in report.checks if not check.ok}


def without(entries, unwanted):
    return [entry for entry in entries if not unwanted(entry)]


def changed(entries, kind, change):
    """The story with `change` made to its last entry of `kind`."""
    place = max(index for index, entry in enumerate(entries) if isinstance(entry, kind))
    return [*entries[:place], replace(entries[place], **change), *entries[place + 1 :]]


def test_a_good_job_passes_every_check():
    report = audit(History(ledger_story()), max_staleness=0, num_steps=3)
    assert report.ok
    assert (report.num_steps, report.num_trained, report.num_outstanding) == (3, 6, 0)
    assert report.num_dropped == {"all rewards failed": 3}
    assert report.num_tokens == report.num_verified_tokens == 6 * 32
    assert (report.staleness, report.workers, report.epochs, report.num_lost) == ({0: 3}, (WORKER,), (1,), 3)


def test_an_empty_ledger_proves_that_nothing_was_lost():
    assert audit(History(), max_staleness=0).ok


def test_a_prompt_that_is_nowhere_is_found():
    story = without(ledger_story(), lambda entry: isinstance(entry, Dropped) and entry.request_id == 5)
    story = [replace(e, request_ids=(3, 4)) if isinstance(e, Dispatched) and 5 in e.request_ids else e for e in story]
    assert failed(story) == {audits.ACCOUNTED}


def test_a_finished_job_with_prompts_under_way_is_found():
    story = without(ledger_story(), lambda entry: isinstance(entry, Dropped) and entry.request_id == 8)
    assert failed(story, num_steps=4) == set()
    assert failed(story) == {audits.ACCOUNTED}


def test_a_prompt_trained_on_twice_is_found():
    story = changed(ledger_story(), Accepted, {"request_ids": (3, 6, 7)})
    assert failed(story, max_staleness=1) == {checks.TRAINED_ONCE, checks.IN_ORDER}


def test_a_prompt_both_dropped_and_trained_on_is_found():
    assert failed(changed(ledger_story(), Accepted, {"request_ids": (6, 7, 8)})) == {checks.NOT_BOTH}
    late = Dropped(request_id=7, prompt_id="7/0", reason="late", **STAMP)
    assert failed([*ledger_story(), late]) == {checks.NOT_BOTH}


def test_a_trained_prompt_that_never_completed_is_found():
    story = without(ledger_story(), lambda entry: isinstance(entry, Completed) and entry.request_id == 7)
    assert failed(story) == {checks.LIVES, checks.VERIFIED}


@pytest.mark.parametrize("change", [{"step": 3}, {"request_ids": (7, 6)}])
def test_steps_or_prompts_out_of_order_are_found(change):
    story = without(ledger_story(), lambda entry: isinstance(entry, Learned) and entry.step == 2)
    assert checks.IN_ORDER in failed(changed(story, Accepted, change), max_staleness=1)


def test_tokens_of_a_version_never_published_are_found():
    story = without(ledger_story(), lambda entry: isinstance(entry, Published) and entry.version == 1)
    assert failed(story) == {checks.VERIFIED}


def test_tokens_of_a_version_that_only_another_worker_proved_are_found():
    assert failed(changed(ledger_story(), Proved, {"worker_id": "rollout-1"})) == {checks.VERIFIED}


def test_a_proof_of_other_bytes_than_were_published_is_found():
    assert failed(changed(ledger_story(), Proved, {"fingerprint": "other"})) == {checks.VERIFIED}


def test_a_version_published_again_with_other_bytes_is_found():
    again = Published(version=2, fingerprint="other", author=(1, 1), **STAMP)
    assert failed([*ledger_story(), again]) == {checks.ONE_FINGERPRINT}
    assert failed([*ledger_story(), replace(again, fingerprint="print-2")]) == set()


def test_a_batch_that_is_too_stale_is_found_whatever_the_driver_said():
    stale = changed(ledger_story(), Completed, {"versions": (1, 2)})
    assert failed(stale, max_staleness=1) == set()
    assert failed(stale) == {audits.STALENESS}
    assert failed(changed(ledger_story(), Accepted, {"staleness": 1})) == {audits.STALENESS}


def test_an_accepted_batch_that_was_never_learned_is_found_unless_it_is_the_last():
    def unlearned(step):
        return without(ledger_story(), lambda entry: isinstance(entry, Learned) and entry.step == step)

    assert failed(unlearned(1)) == {checks.LEARNED}
    assert failed(unlearned(2)) == set()


def test_a_replay_with_another_loss_is_found():
    again = Learned(step=1, version=2, loss=(1.0).hex(), **STAMP)
    report = audit(History([*ledger_story(), again]), max_staleness=0)
    assert (report.ok, report.num_replays) == (True, 1)
    assert failed([*ledger_story(), replace(again, loss=(1.0 + 2**-52).hex())]) == {checks.REPLAYS}


def test_two_drivers_at_a_time_are_found():
    second = Opened(step=3, epoch=2, time_s=0.0)
    first_again = Dispatched(request_ids=(9,), worker_id=WORKER, version=2, **STAMP)
    assert failed([*ledger_story(), second, first_again], num_steps=9) == {checks.ONE_DRIVER}


def settled(entries, step):
    return settle(entries, History(entries), step=step)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_settled_ledger_says_what_the_whole_one_said(step):
    whole = audit(History(ledger_story()), max_staleness=0, num_steps=3)
    short = audit(History(settled(ledger_story(), step)), max_staleness=0, num_steps=3)
    names = ("num_trained", "num_dropped", "num_tokens", "num_verified_tokens", "staleness", "workers", "num_lost")
    assert [getattr(short, name) for name in names] == [getattr(whole, name) for name in names]
    assert short.ok
    assert short.num_settled_steps == step


@pytest.mark.parametrize("step", [1, 2, 3])
def test_settling_twice_is_settling_once(step):
    assert settled(settled(ledger_story(), 1), step) == settled(ledger_story(), step)


def test_a_prompt_of_a_settled_step_cannot_come_back():
    short = settled(ledger_story(), 3)
    again = Dispatched(request_ids=(4,), worker_id=WORKER, version=3, **STAMP)
    assert failed([*short, again]) == {checks.LIVES}
    batch = Accepted(step=3, request_ids=(4,), staleness=0, digest="", **STAMP)
    assert checks.TRAINED_ONCE in failed([*short, batch], num_steps=9)
    dropped = Dropped(request_id=4, prompt_id="4/0", reason="late", **STAMP)
    assert failed([*short, dropped]) == {checks.NOT_BOTH}


def test_settling_hides_no_violation():
    story = without(ledger_story(), lambda entry: isinstance(entry, Published) and entry.version == 0)
    story = without(story, lambda entry: isinstance(entry, Learned) and entry.step == 1)
    twice = changed(story, Accepted, {"request_ids": (3, 6, 7)})
    for step in (1, 2, 3):
        for short in (settled(twice, step), settled(settled(twice, 1), step)):
            assert failed(short, max_staleness=1) == failed(twice, max_staleness=1)


def test_settling_keeps_proofs_that_a_later_group_needs():
    """Request 9 went out under version 2 and ends after the steps up to 3 are settled."""
    under_way = [*ledger_story(), Dispatched(request_ids=(9,), worker_id=WORKER, version=2, **STAMP)]
    lost = [*under_way, Lost(request_ids=(9,), worker_id=WORKER, reason="drained", **STAMP)]
    rest = [
        Dispatched(request_ids=(9,), worker_id="rollout-1", version=3, **STAMP),
        completed(9, version=2),
        Accepted(step=3, request_ids=(9,), staleness=1, digest="", **STAMP),
    ]
    assert failed([*settled(lost, 3), *rest], max_staleness=1, num_steps=4) == set()


def test_a_settled_ledger_is_small_however_long_the_job():
    assert len(settled(ledger_story(num_steps=50), 50)) == 3  # the fold, the driver, the newest checkpoint
    assert settled(ledger_story(num_steps=50), 50)[0].request_ids == ((0, 149),)
