"""One database of either kind: migrated up and down, opened by many, written by one at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

from rlhf_cluster.errors import ConfigError, StorageError
from rlhf_cluster.service.store import checkpoints, jobs
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tables import metadata


def test_the_migrations_make_the_tables_that_the_code_knows(db: Database):
    with db.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_migrations_can_be_taken_back_and_run_again(kind: str, new_url: Callable[[str], str]):
    database = Database(new_url(kind))
    assert not database.is_current()
    database.migrate()
    assert database.is_current()
    database.migrate("base")
    with database.reading() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    database.migrate()
    assert database.is_current()
    database.close()


def test_several_processes_may_migrate_at_once(kind: str, new_url: Callable[[str], str]):
    url = new_url(kind)

    def migrate(_: int) -> bool:
        database = Database(url)
        database.migrate()
        is_current = database.is_current()
        database.close()
        return is_current

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(migrate, range(3))) == [True] * 3


def test_a_transaction_that_fails_leaves_nothing(db: Database, submit: Callable[..., str]):
    job_id = submit()

    def fail() -> None:
        with db.writing() as connection:
            jobs.delete(connection, job_id)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with db.reading() as connection:
        assert jobs.get(connection, job_id) is not None


def test_readers_do_not_wait_for_a_writer(db: Database, submit: Callable[..., str]):
    job_id = submit()
    with db.writing() as writer:
        jobs.delete(writer, job_id)
        with db.reading() as reader:
            assert jobs.get(reader, job_id) is not None


def test_a_reader_sees_one_state_however_often_it_looks(db: Database, submit: Callable[..., str]):
    with db.reading() as reader:
        assert len(jobs.page(reader, limit=9)[0]) == 0
        submit()
        assert len(jobs.page(reader, limit=9)[0]) == 0
    with db.reading() as reader:
        assert len(jobs.page(reader, limit=9)[0]) == 1


def test_a_url_of_another_database_is_refused_by_name():
    with pytest.raises(ConfigError, match="mysql"):
        Database("mysql://user:hidden@host/name")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x.db?uri=true"])
def test_a_database_that_is_no_file_is_refused(url):
    with pytest.raises(ConfigError, match="is a file"):
        Database(url)


def test_a_password_is_not_in_the_message():
    with pytest.raises(StorageError) as raised:
        Database("postgresql://user:hidden@127.0.0.1:1/name?connect_timeout=2")
    assert "hidden" not in str(raised.value)


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "service.db").write_text("this is no database, but it is long enough to look like one" * 20)
    with pytest.raises(StorageError, match="not a database"):
        Database(f"sqlite:///{tmp_path / 'service.db'}")


def test_a_row_of_a_job_that_does_not_exist_is_refused(db: Database):
    with db.writing() as connection, pytest.raises(IntegrityError):
        checkpoints.add(connection, "job_none", step=1, path="", time_s=1.0)
