"""Commands: waiting until they are answered, in the order in which they were given."""

from __future__ import annotations

import pytest

from rlhf_cluster.service.store import commands
from rlhf_cluster.service.store.database import Database


def _add(db: Database, job_id: str, name: str, *, expires_s: float | None = None, now_s: float = 1.0) -> str:
    with db.writing() as connection:
        row = commands.add(connection, job_id, {"command": name}, created_by="ada", now_s=now_s, expires_s=expires_s)
    assert (row.state, row.body, row.answer, row.created_by) == ("pending", {"command": name}, "", "ada")
    return row.command_id


def test_commands_of_one_moment_wait_in_the_order_in_which_they_were_given(db: Database, submit):
    job_id, other = submit(), submit()
    _add(db, other, "Stop")
    given = [_add(db, job_id, name) for name in ("Pause", "Resume", "Stop")]
    assert given == sorted(given)  # the driver obeys them by their names
    with db.writing() as connection:
        assert [row.command_id for row in commands.waiting(connection, job_id, now_s=2.0)] == given


def test_a_delivered_command_waits_on_until_it_is_answered(db: Database, job_id: str):
    pause, stop = _add(db, job_id, "Pause"), _add(db, job_id, "Stop")
    with db.writing() as connection:
        commands.deliver(connection, [pause])
        rows = commands.waiting(connection, job_id, now_s=2.0)
        assert [(row.command_id, row.state) for row in rows] == [(pause, "delivered"), (stop, "pending")]
        commands.answer(connection, pause, ok=True, text="paused", now_s=3.0)
        assert [row.command_id for row in commands.waiting(connection, job_id, now_s=4.0)] == [stop]
        row = commands.get(connection, pause)
        assert (row.state, row.answer, row.answered_s) == ("done", "paused", 3.0)


def test_a_command_whose_time_is_over_is_marked_and_left_out(db: Database, job_id: str):
    late = [_add(db, job_id, "Pause", expires_s=5.0), _add(db, job_id, "Stop", expires_s=6.0)]
    with db.writing() as connection:
        commands.deliver(connection, late[:1])
        assert [row.command_id for row in commands.waiting(connection, job_id, now_s=5.0)] == late[1:]
        assert commands.get(connection, late[0]).state == "expired"
        assert commands.waiting(connection, job_id, now_s=6.0) == []
        commands.deliver(connection, late)
        assert commands.get(connection, late[1]).state == "expired"


def test_the_first_answer_counts_and_is_heard_after_the_time_was_over(db: Database, job_id: str):
    command_id = _add(db, job_id, "Drain", expires_s=5.0)
    with db.writing() as connection:
        commands.waiting(connection, job_id, now_s=9.0)
        commands.answer(connection, command_id, ok=False, text="there is no such worker", now_s=10.0)
        commands.answer(connection, command_id, ok=True, text="again", now_s=11.0)
        row = commands.get(connection, command_id)
    assert (row.state, row.answer, row.answered_s) == ("refused", "there is no such worker", 10.0)


def test_commands_are_listed_newest_first_page_by_page(db: Database, job_id: str):
    given = [_add(db, job_id, "Pause", now_s=float(number // 2)) for number in range(5)]
    with db.reading() as connection:
        rows, cursor = commands.of_job(connection, job_id, limit=2)
        assert [row.command_id for row in rows] == given[:2:-1]
        rows, cursor = commands.of_job(connection, job_id, limit=3, cursor=cursor)
        assert [row.command_id for row in rows] == given[2::-1]
        assert cursor is None
        with pytest.raises(ValueError, match="next_cursor"):
            commands.of_job(connection, job_id, limit=3, cursor="x")
        assert commands.get(connection, "cmd_none") is None
