from rlhf_cluster.flow.history import LIVES, ONE_DRIVER, History
from rlhf_cluster.records.ledger import Dispatched, Dropped, Lost, Opened
from rlhf_cluster.testing.ledger_story import STAMP, WORKER, completed, ledger_story


def dispatched(*request_ids):
    return Dispatched(request_ids=request_ids, worker_id=WORKER, version=3, **STAMP)


def dropped(request_id):
    return Dropped(request_id=request_id, prompt_id=f"{request_id}/0", reason="flat", **STAMP)


def test_the_story_of_a_good_job_has_no_violations():
    history = History(ledger_story(num_steps=3, prompts_per_step=2))
    assert history.violations == []
    assert (history.step, history.next_request_id, history.last_epoch) == (3, 9, 1)
    assert history.outstanding == history.dropped_since_last_accept == ()


def test_what_was_under_way_is_what_a_driver_has_to_do_again():
    history = History([*ledger_story(), dispatched(9, 10, 11), completed(10, version=3), dropped(11)])
    assert history.outstanding == (9, 10)
    assert history.completed_unaccepted == (10,)
    assert history.dropped_since_last_accept == (11,)
    assert history.next_request_id == 12


def test_restarted_requests_live_anew_and_stay_outstanding():
    before = [*ledger_story(), dispatched(9, 10), completed(9, version=3), dropped(10)]
    history = History([*before, Opened(step=3, restarted=(9, 10), epoch=2, time_s=0.0)])
    assert history.outstanding == (9, 10)
    assert history.completed_unaccepted == history.dropped_since_last_accept == ()
    again = Dispatched(request_ids=(9, 10), worker_id="rollout-1", version=3, epoch=2, time_s=0.0)
    history.add(again)
    assert history.violations == []


def test_a_request_that_was_trained_on_cannot_be_restarted():
    history = History([*ledger_story(), Opened(step=3, restarted=(0,), **STAMP)])
    assert [check for check, _ in history.violations] == [LIVES]


def test_a_request_cannot_go_out_twice_or_complete_without_having_gone_out():
    history = History([*ledger_story(), dispatched(9), dispatched(9), completed(30, version=3)])
    assert [check for check, _ in history.violations] == [LIVES, LIVES]


def test_a_request_may_be_with_two_workers_and_waits_again_when_both_are_lost():
    def to(worker_id):
        return Dispatched(request_ids=(9,), worker_id=worker_id, version=3, **STAMP)

    def lost_with(worker_id):
        return Lost(request_ids=(9,), worker_id=worker_id, reason="hung", **STAMP)

    history = History([*ledger_story(), to("a"), to("b"), lost_with("a")])
    assert history.lives[9].holders == {"b"}
    completing = History([*ledger_story(), to("a"), to("b"), lost_with("a"), completed(9, version=3)])
    assert completing.completed_unaccepted == (9,)
    history.add(lost_with("b"))
    history.add(to("b"))
    assert history.violations == completing.violations == []
    history.add(lost_with("a"))
    assert [check for check, _ in history.violations] == [LIVES]


def test_a_driver_that_writes_after_it_was_replaced_is_seen():
    history = History([Opened(step=0, epoch=2, time_s=0.0), dispatched(0)])
    assert [check for check, _ in history.violations] == [ONE_DRIVER]


def test_a_prompt_may_be_left_out_before_it_ever_went_out():
    history = History([*ledger_story(), dropped(9)])
    assert history.violations == []
    assert history.next_request_id == 10
