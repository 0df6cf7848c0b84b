"""Of several API processes on one PostgreSQL one acts at a time."""

from __future__ import annotations

import contextlib
import time

from sqlalchemy.exc import SQLAlchemyError

from rlhf_cluster.service.leader import Leadership
from rlhf_cluster.service.store.database import Database


def test_one_process_at_a_time_leads_and_another_one_takes_its_place(new_postgresql):
    url = new_postgresql()
    here, there = Database(url), Database(url)
    first, second = Leadership(here), Leadership(there)
    assert first.holds()
    assert not second.holds()
    assert first.holds()
    first.resign()
    assert second.holds()
    assert not first.holds()
    second.resign()
    here.close()
    there.close()


def test_a_leader_whose_connection_was_cut_leads_no_more_and_may_lead_again(new_postgresql):
    url = new_postgresql()
    here, there = Database(url), Database(url)
    first, second = Leadership(here), Leadership(there)
    assert first.holds()
    with there.writing() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert leads_within(30, second)
    second.resign()
    assert leads_within(30, first)
    first.resign()
    here.close()
    there.close()


def leads_within(seconds: float, leadership: Leadership) -> bool:
    """A server that ends a connection frees its locks a moment later, and a leader finds it cut at its next call."""
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        with contextlib.suppress(SQLAlchemyError):
            if leadership.holds():
                return True
        time.sleep(0.02)
    return False


def test_on_sqlite_there_is_only_one_process(tmp_path):
    db = Database(f"sqlite:///{tmp_path / 'a.db'}")
    assert Leadership(db).holds()
    db.close()
