from __future__ import annotations

import json

import pytest

from rlhf_cluster.driver.observers import journal
from rlhf_cluster.driver.observers.journal import Journal
from rlhf_cluster.records.events import Evaluated


def written(events, job_dir):
    observer = Journal(job_dir)
    for event in events:
        observer.on_event(event)
    observer.close()
    return list(journal.read(job_dir))


def test_every_event_is_one_line_in_order(job_events, tmp_path):
    entries = written(job_events, tmp_path)
    assert [entry["event"] for entry in entries] == [type(event).__name__ for event in job_events]
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == len(job_events)


def test_figures_that_are_not_finite_become_null(job_events, tmp_path):
    step = next(entry for entry in written(job_events, tmp_path) if entry["event"] == "StepDone")
    assert step["metrics"]["learner/loss"] is None
    assert step["metrics"]["reward/mean"] == 0.1


def test_groups_are_kept_without_their_token_arrays(job_events, tmp_path):
    step = next(entry for entry in written(job_events, tmp_path) if entry["event"] == "StepDone")
    assert step["groups"][0] == {
        "request_id": 1,
        "prompt_id": "1/0",
        "worker_id": "rollout-0",
        "oldest_version": 0,
        "lengths": [2, 1],
        "rewards": [1.0, 0.0],
    }


def test_an_evaluation_keeps_texts_and_a_failed_reward_keeps_its_reason(job_events, tmp_path):
    entries = written(job_events, tmp_path)
    evaluated = next(entry for entry in entries if entry["event"] == "Evaluated")
    failed = next(entry for entry in entries if entry["event"] == "RewardFailed")
    assert evaluated["samples"][0] == {
        "prompt_id": "100/0",
        "prompt": "prompt 100",
        "completion": "dull",
        "reward": 1.0,
    }
    assert failed["invalid"]["kind"] == "timed_out"


def test_a_resumed_journal_cuts_off_a_torn_line_and_appends(job_events, tmp_path):
    written(job_events[:2], tmp_path)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"event": "StepDo')
    assert len(list(journal.read(tmp_path))) == 2
    assert len(written(job_events[2:3], tmp_path)) == 3


def test_reading_where_no_journal_is_gives_nothing(tmp_path):
    assert list(journal.read(tmp_path)) == []


def test_a_lone_surrogate_in_a_prompt_does_not_end_the_journal(group, tmp_path):
    event = Evaluated(time_s=1.0, step=0, metrics={}, groups=(group(1, prompt="broken \ud800"),))
    assert written([event], tmp_path)[0]["samples"][0]["prompt"] == "broken ?"


def test_lines_are_strict_json(job_events, tmp_path):
    written(job_events, tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    for line in (tmp_path / "journal.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("damage", [b"\0\0\0\0", b'{"event": "Ste', b"\xff\xfe", b"3"])
def test_a_damaged_line_is_left_out_and_keeps_no_job_from_going_on(job_events, tmp_path, damage):
    written(job_events[:1], tmp_path)
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(damage + b"\n")
    assert len(written(job_events[1:3], tmp_path)) == 3
