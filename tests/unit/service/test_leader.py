"""Of several API processes on one PostgreSQL one acts at a time."""

from __future__ import annotations

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
    assert second.holds()
    second.resign()
    assert leads_soon(first)
    first.resign()
    here.close()
    there.close()


def leads_soon(leadership: Leadership) -> bool:
    """The first call finds the connection cut, and the reconciler calls again."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return leadership.holds()
    except SQLAlchemyError:
        return leadership.holds()


def test_on_sqlite_there_is_only_one_process(tmp_path):
    db = Database(f"sqlite:///{tmp_path / 'a.db'}")
    assert Leadership(db).holds()
    db.close()
