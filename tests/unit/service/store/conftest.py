"""Every test of the store runs on both databases, each on empty tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rlhf_cluster.service.store import jobs
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tables import metadata


@pytest.fixture(scope="session")
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The URL of an empty database of a kind."""

    def create(kind: str) -> str:
        if kind == "postgresql":
            return request.getfixturevalue("new_postgresql")()
        return f"sqlite:///{tmp_path_factory.mktemp('database')}/service.db"

    return create


@pytest.fixture(scope="session")
def migrated(new_url: Callable[[str], str]) -> Iterator[Callable[[str], Database]]:
    """The database of a kind that the tests have in common; what is in it is the last one's."""
    databases: dict[str, Database] = {}

    def once(kind: str) -> Database:
        if kind not in databases:
            databases[kind] = Database(new_url(kind))
            databases[kind].migrate()
        return databases[kind]

    yield once
    for database in databases.values():
        database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def db(kind: str, migrated: Callable[[str], Database]) -> Database:
    """Without any row."""
    database = migrated(kind)
    with database.writing() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    return database


@pytest.fixture
def submit(db: Database) -> Callable[..., str]:
    """Adds a job and gives its id."""

    def add(**fields: Any) -> str:
        job = {"name": "a-job", "owner": "ada", "labels": {}, "notes": "", "source": "", "config": {}, "now_s": 100.0}
        with db.writing() as connection:
            return jobs.add(
                connection, **{**job, "num_steps": 9, "max_attempts": 3, "bundle_sha256": None, **fields}
            ).job_id

    return add


@pytest.fixture
def job_id(submit: Callable[..., str]) -> str:
    return submit()
