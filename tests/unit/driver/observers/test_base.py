from __future__ import annotations

import pytest

from rlhf_cluster.driver.observers.base import Observers
from rlhf_cluster.records.events import Event, Notice


class Seen:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.num_closed = 0

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.num_closed += 1


class FullDisk(Seen):
    def on_event(self, event: Event) -> None:
        super().on_event(event)
        raise OSError(28, "No space left on device")


class FullDiskAtTheEnd(Seen):
    def close(self) -> None:
        raise OSError(28, "No space left on device")


class Broken(Seen):
    def on_event(self, event: Event) -> None:
        raise KeyError("a bug")


def test_every_observer_sees_every_event_in_order(job_events):
    first, second = Seen(), Seen()
    with Observers([first, second]) as observers:
        for event in job_events:
            observers.on_event(event)
    assert first.events == second.events == job_events
    assert first.num_closed == second.num_closed == 1


def test_an_observer_that_cannot_write_is_switched_off_with_one_warning_and_the_others_go_on(job_events):
    full, seen = FullDisk(), Seen()
    observers = Observers([full, seen])
    for event in job_events:
        observers.on_event(event)
    notices = [event for event in seen.events if isinstance(event, Notice) and "switched off" in event.text]
    assert len(full.events) == 1
    assert len(seen.events) == len(job_events) + 1
    assert [notice.level for notice in notices] == ["warning"]
    assert "FullDisk" in notices[0].text
    assert "No space left" in notices[0].text


def test_all_observers_may_fail_and_the_job_still_goes_on(job_events):
    observers = Observers([FullDisk(), FullDisk()])
    for event in job_events:
        observers.on_event(event)
    observers.close()


def test_a_bug_in_an_observer_is_not_hidden(job_events):
    with pytest.raises(KeyError):
        Observers([Broken()]).on_event(job_events[0])


def test_an_observer_that_cannot_close_does_not_keep_the_others_open(job_events):
    seen = Seen()
    observers = Observers([seen, FullDiskAtTheEnd()])
    observers.on_event(job_events[0])
    observers.close()
    observers.close()
    assert seen.num_closed == 1
    assert "FullDiskAtTheEnd" in seen.events[-1].text
