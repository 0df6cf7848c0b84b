"""The staleness buffer, case by case; `tests/properties/test_buffer_laws.py` holds its laws."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_cluster.flow.buffer import Buffer, IllegalTransition
from rlhf_cluster.records import Prompt, RolloutGroup


def _group(request_id, versions=(0, 0)):
    return RolloutGroup(
        request_id=request_id,
        prompt=Prompt(prompt_id=f"{request_id}/0", text="", token_ids=np.array([1], dtype=np.int32)),
        worker_id="w0",
        lengths=np.array([len(versions)], dtype=np.int32),
        token_ids=np.zeros(len(versions), dtype=np.int32),
        logprobs=np.zeros(len(versions), dtype=np.float32),
        versions=np.array(versions, dtype=np.int32),
        finish_reasons=("stop",),
    )


def _filled(num_requests, **settings):
    buffer = Buffer(**{"prompts_per_step": 2, "max_staleness": 0, **settings})
    for request_id in range(num_requests):
        buffer.dispatch(request_id, version=0)
    return buffer


def _ids(batch):
    return None if batch is None else [group.request_id for group in batch]


def test_synchronous_mode_admits_one_batch_and_the_next_only_for_the_new_version():
    buffer = _filled(2)
    assert buffer.capacity(0) == 0
    buffer.complete(_group(0))
    buffer.complete(_group(1))
    assert _ids(buffer.take()) == [0, 1]
    assert (buffer.capacity(0), buffer.capacity(1)) == (0, 2)


def test_staleness_admits_that_many_batches_ahead():
    buffer = _filled(0, max_staleness=2)
    assert [buffer.capacity(version) for version in (-1, 0)] == [0, 6]


def test_workers_on_an_older_version_are_admitted_against_their_own():
    buffer = Buffer(prompts_per_step=2, max_staleness=1, first_step=5)
    assert [buffer.capacity(version) for version in (3, 4, 5)] == [0, 2, 4]


def test_younger_groups_wait_for_the_oldest():
    buffer = _filled(4, max_staleness=1)
    for request_id in (1, 2, 3):
        buffer.complete(_group(request_id))
    assert buffer.take() is None
    buffer.complete(_group(0))
    assert _ids(buffer.take()) == [0, 1]
    assert _ids(buffer.take()) == [2, 3]


def test_the_head_is_what_the_next_batch_is_sure_to_begin_with():
    buffer = _filled(6, prompts_per_step=3, max_staleness=1)
    buffer.complete(_group(1))
    assert buffer.ready() == ()
    buffer.complete(_group(0))
    assert _ids(buffer.ready()) == [0, 1]
    buffer.complete(_group(3))
    buffer.drop(2, reason="zero_variance")
    assert _ids(buffer.ready()) == [0, 1, 3]
    buffer.complete(_group(4))
    assert _ids(buffer.ready()) == _ids(buffer.take()) == [0, 1, 3]
    assert _ids(buffer.ready()) == [4]


def test_a_drop_frees_its_slot_for_the_next_prompt_which_stands_last():
    buffer = _filled(2)
    buffer.drop(0, reason="zero_variance")
    assert buffer.capacity(0) == 1
    buffer.dispatch(2, version=0)
    buffer.complete(_group(2))
    buffer.complete(_group(1))
    assert _ids(buffer.take()) == [1, 2]


def test_nothing_is_admitted_that_no_step_would_take():
    buffer = _filled(0, max_staleness=3, num_steps=2)
    assert buffer.capacity(0) == 4


def test_a_group_without_tokens_has_no_age_to_check():
    buffer = _filled(1, prompts_per_step=1)
    buffer.complete(_group(0, versions=()))
    assert _ids(buffer.take()) == [0]


def test_a_snapshot_says_what_the_line_waits_for():
    buffer = _filled(5, max_staleness=2)
    for request_id in (0, 1, 3):
        buffer.complete(_group(request_id))
    buffer.drop(4, reason="zero_variance")
    snapshot = buffer.snapshot()
    assert (snapshot.num_in_flight, snapshot.num_complete, snapshot.num_ready) == (1, 3, 2)
    assert (snapshot.waiting_for, snapshot.num_dispatched, snapshot.num_taken) == (2, 5, 0)
    assert snapshot.num_dropped == {"zero_variance": 1}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (lambda buffer: buffer.dispatch(2, version=0), "without capacity"),
        (lambda buffer: buffer.dispatch(1, version=0), "ids must grow"),
        (lambda buffer: buffer.dispatch(2, version=1), "newest there can be"),
        (lambda buffer: buffer.complete(_group(7)), "request 7 is not outstanding"),
        (lambda buffer: buffer.complete(_group(0)), "already complete"),
        (lambda buffer: buffer.drop(0, reason="late"), "already complete"),
        (lambda buffer: buffer.drop(7, reason="late"), "request 7 is not outstanding"),
        (lambda buffer: buffer.complete(_group(1, versions=(0, 1))), "versions 0 to 1"),
    ],
)
def test_events_out_of_order_are_refused_as_our_bug(event, words):
    buffer = _filled(2)
    buffer.complete(_group(0))
    before = buffer.snapshot()
    with pytest.raises(IllegalTransition, match=words):
        event(buffer)
    assert buffer.snapshot() == before


def test_a_group_older_than_the_version_it_was_dispatched_to_is_refused():
    buffer = Buffer(prompts_per_step=1, max_staleness=0, first_step=3)
    buffer.dispatch(0, version=3)
    with pytest.raises(IllegalTransition, match="versions 2 to 3"):
        buffer.complete(_group(0, versions=(2, 3)))


@pytest.mark.parametrize("settings", [{"prompts_per_step": 0}, {"max_staleness": -1}])
def test_settings_that_could_never_make_a_batch_are_refused(settings):
    with pytest.raises(ValueError, match="at least"):
        Buffer(**{"prompts_per_step": 2, "max_staleness": 0, **settings})
