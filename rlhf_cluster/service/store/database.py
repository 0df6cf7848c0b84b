"""One database, SQLite or PostgreSQL: opened, migrated, read and written in short transactions.

One transaction writes at a time, on both. On SQLite it takes the one write lock at its beginning: a transaction that
reads first and is refused when it writes would have to be begun again by its caller. On PostgreSQL it takes a lock of
ours, so that no two wait for each other's rows, and ids of events become visible in the order of their numbers.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Generator, Hashable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rlhf_cluster.errors import ConfigError, StorageError

BUSY_S = 10.0
"""A writer waits so long for another one."""
WRITER = 724113
"""PostgreSQL's advisory lock of the transaction that writes."""
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """`reading()` and `writing()` give a connection within a transaction; threads may use them at once."""

    def __init__(self, url: str) -> None:
        """`sqlite:///path` or `postgresql://...`. Raises `ConfigError` for any other, `StorageError` where it cannot be
        opened."""
        self.engine = _engine(url)
        self._watcher: sqlite3.Connection | None = None
        self._turn = threading.Lock()
        try:
            with self.reading() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError as error:
            raise StorageError(f"the database {_shown(url)} cannot be opened: {_reason(error)}") from error

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """All of it sees one state of the database."""
        with self.engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """All or nothing. Raises SQLAlchemy's `OperationalError` where other writers took longer than `BUSY_S`."""
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL lock_timeout = {int(BUSY_S * 1000)}"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITER})"))
            yield connection

    def migrate(self, revision: str = "head") -> None:
        """Bring the tables to `revision`, from wherever they are; many processes may try at once."""
        from alembic import command

        with self.writing() as connection:
            settings = _alembic_config(connection)
            (command.upgrade if revision != "base" else command.downgrade)(settings, revision)

    def is_current(self) -> bool:
        """Whether every migration has run."""
        from alembic.migration import MigrationContext
        from alembic.script import ScriptDirectory

        with self.reading() as connection:
            has = MigrationContext.configure(connection).get_current_heads()
            return set(has) == set(ScriptDirectory.from_config(_alembic_config(connection)).get_heads())

    def stamp(self) -> Hashable:
        """Whoever reads between two equal stamps reads the same, whichever process has written. Waits for the
        database."""
        if (quick := self.quick_stamp()) is not None:
            return quick
        with self.reading() as connection:
            return connection.execute(text("SELECT pg_current_snapshot()::text")).scalar_one()

    def quick_stamp(self) -> Hashable | None:
        """The stamp where it needs no waiting, as on SQLite, which counts the commits of all other connections; None
        where `stamp` has to be asked."""
        if self.engine.dialect.name != "sqlite":
            return None
        with self._turn:
            try:
                if self._watcher is None:
                    # It never writes, so every commit is another's. It waits for nobody: a loop may ask it.
                    path = str(self.engine.url.database)
                    self._watcher = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
                return self._watcher.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:
                return object()  # equal to no other: what is read now is known to be the same as nothing else

    def close(self) -> None:
        self.engine.dispose()
        with self._turn:
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            return create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
        if parsed.get_backend_name() != "sqlite":
            raise ConfigError(f"database = {_shown(url)!r}: it is sqlite:///PATH or postgresql://USER@HOST/NAME")
        if parsed.get_backend_name() == "sqlite" and (
            not parsed.database or parsed.database.startswith((":", "file:"))
        ):
            raise ConfigError(f"database = {_shown(url)!r}: an SQLite database is a file, as in sqlite:///PATH")
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_S})
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"database = {url!r} is no URL of a database: {error}") from error
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _: Any) -> None:
    # SQLAlchemy begins the transactions, below; the driver would begin one before the first write only.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _alembic_config(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def _shown(url: str) -> str:
    """Without the password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def _reason(error: SQLAlchemyError) -> str:
    return str(error.__cause__ or error).strip().splitlines()[0]
