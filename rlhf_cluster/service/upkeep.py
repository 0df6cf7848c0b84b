"""Keeps the database from growing for ever: what nobody needs any more is removed, a little at a time.

Every removal is a short transaction of its own, so that nobody who writes waits for it. Several processes on one
database may do it at once: what is gone is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import answers, audit, events, tokens
from rlhf_cluster.service.store.database import Database

AT_ONCE = 1000
"""Rows in one transaction."""
BETWEEN_S = 0.05
"""Between two transactions, for those who wait to write."""
Trim = Callable[[Connection], int]

log = logging.getLogger(__name__)


class Upkeep:
    def __init__(self, db: Database, settings: ServiceSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._db = db
        self._settings = settings
        self._clock = clock
        self._is_ending = False

    async def run(self) -> None:
        """consumes: time; produces: room; waits for: time, and for the database with its own bound; unblocked by:
        cancellation. A database that is away is tidied later."""
        while True:
            for trim in self.trims():
                await asyncio.to_thread(self.all_of, trim)
            await asyncio.sleep(self._settings.tidy_every_s)

    def all_of(self, trim: Trim) -> None:
        """At most for one round's time, which is asked about at every transaction: the rest goes next time."""
        end_s = time.monotonic() + self._settings.tidy_every_s
        try:
            while self._some(trim) == AT_ONCE and time.monotonic() < end_s and not self._is_ending:
                time.sleep(BETWEEN_S)
        except SQLAlchemyError as error:
            log.warning("old rows cannot be removed now; this is tried again: %s", error)

    def close(self) -> None:
        self._is_ending = True

    def trims(self) -> tuple[Trim, ...]:
        """Each removes at most `AT_ONCE` rows and says how many."""
        now_s, keep = self._clock(), self._settings
        return (
            lambda c: events.trim(c, keep=keep.keep_events, limit=AT_ONCE),
            lambda c: answers.trim(c, before_s=now_s - keep.keep_answers_s, limit=AT_ONCE),
            lambda c: audit.trim(c, before_s=now_s - keep.keep_audit_s, limit=AT_ONCE),
            lambda c: tokens.trim(c, before_s=now_s - keep.keep_expired_tokens_s, limit=AT_ONCE),
        )

    def _some(self, trim: Trim) -> int:
        with self._db.writing() as connection:
            return trim(connection)
