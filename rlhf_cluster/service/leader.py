"""Who acts: of several API processes on one PostgreSQL database one at a time. On SQLite there is only one process."""

from __future__ import annotations

import contextlib
import logging

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from rlhf_cluster.service.store.database import Database

LOCK = 724114
log = logging.getLogger(__name__)


class Leadership:
    """PostgreSQL holds the lock for as long as this process keeps its connection, and not a moment longer."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection: Connection | None = None

    def holds(self) -> bool:
        """Become the leader, or see whether we still are. Raises `SQLAlchemyError` where the database is away."""
        if self._db.engine.dialect.name != "postgresql":
            return True
        try:
            return self._still_holds() or self._try()
        except SQLAlchemyError:
            self.resign()
            raise

    def resign(self) -> None:
        """Another process may lead as soon as this returns."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # PostgreSQL frees the locks of a connection that was closed a moment later, so it is told first. One that is
        # cut cannot be told, and holds nothing.
        with contextlib.suppress(SQLAlchemyError):
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
        connection.invalidate()
        connection.close()

    def _still_holds(self) -> bool:
        if self._connection is None:
            return False
        self._connection.execute(text("SELECT 1"))
        return True

    def _try(self) -> bool:
        connection = self._db.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        has_it = False
        try:
            has_it = bool(connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}).scalar())
        finally:
            if not has_it:
                connection.close()
        if has_it:
            self._connection = connection
            log.info("this process now runs the jobs")
        return has_it
