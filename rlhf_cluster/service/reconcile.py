"""Makes what is out of what is wanted: for every unfinished job it gathers facts, asks `flow/attempts.py` what to do,
and does it. Beside the requests, in one process at a time.

Ray or the database being away ends nothing: it is told once, and tried again. Whoever has not listened for a while,
because this process did not run or could not reach its database, gives every driver a whole lease to be heard again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from rlhf_cluster.flow.attempts import OVER, Attempt, Bounds, JobFacts, next_action
from rlhf_cluster.service.deeds import Deeds
from rlhf_cluster.service.leader import Leadership
from rlhf_cluster.service.patient_ray import PatientRay
from rlhf_cluster.service.ray_jobs import RayJobs
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import attempts, jobs
from rlhf_cluster.service.store.database import Database

MAX_ACTIONS = 4
"""For one job in a row; what then remains is for the next turn."""
FOLLOWER_S = 5.0
"""A process that does not lead looks again after so long."""
MAX_PAUSE_S = 30.0
LATE_S = 10.0
"""A turn that comes so much later than it should: this process did not listen in between."""
ENDING_S = 5.0

log = logging.getLogger(__name__)


class Reconciler:
    def __init__(
        self, db: Database, ray: RayJobs | None, settings: ServiceSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._db = db
        self._settings = settings
        self._clock = clock
        self._ray = PatientRay(ray, clock=clock)
        self._deeds = Deeds(db, self._ray, settings, clock=clock)
        self._leader = Leadership(db)
        self._bounds = Bounds(lease_s=settings.lease_s, launch_s=settings.launch_s, cancel_s=settings.cancel_s)
        self._listening_since_s = clock()
        self._turned_s = clock()
        self._pause_s = 0.0
        self._broken: dict[str, str] = {}
        self._is_ending = False

    async def run(self) -> None:
        """consumes: jobs and what Ray says of them; produces: attempts, commands, states, events; waits for: time, and
        for Ray and the database, each with a bound; unblocked by: cancellation."""
        try:
            while True:
                turn = asyncio.ensure_future(asyncio.to_thread(self.turn))
                try:
                    pause_s = await asyncio.shield(turn)
                except asyncio.CancelledError:
                    self._is_ending = True
                    await asyncio.wait([turn], timeout=ENDING_S)
                    raise
                await asyncio.sleep(pause_s)
        except Exception:
            log.critical("jobs are not looked after any more: restart the service", exc_info=True)
            raise
        finally:
            self._leader.resign()

    def rest(self) -> None:
        """Begin nothing any more and give nothing up, until this process ends: the cluster is about to be taken away
        under all jobs, and their drivers are being ended. May be called from a signal's handler."""
        self._is_ending = True

    def turn(self) -> float:
        """Look at every job once, where this process leads; returns after how many seconds to look again."""
        if self._is_ending:
            return FOLLOWER_S
        try:
            if not self._leader.holds():
                return FOLLOWER_S
            self._listen()
            self.sweep()
        except SQLAlchemyError as error:
            if not self._pause_s:
                log.warning("the database cannot be used now; jobs go on, and this is tried again: %s", error)
            self._pause_s = min(max(2 * self._pause_s, 1.0), MAX_PAUSE_S)
            return self._pause_s
        if self._pause_s:
            log.info("the database can be used again")
            self._pause_s = 0.0
        self._turned_s = self._clock()
        return self._settings.reconcile_every_s

    def _listen(self) -> None:
        now_s = self._clock()
        if now_s - self._turned_s > self._settings.reconcile_every_s + LATE_S:
            self._listening_since_s = now_s
        self._turned_s = now_s

    def sweep(self) -> None:
        """Raises `SQLAlchemyError` where the database is away, and nothing else."""
        with self._db.reading() as connection:
            job_ids = [row.job_id for row in jobs.unfinished(connection)]
        self._ray.stop_what_is_owed()
        for job_id in job_ids:
            try:
                self._settle(job_id)
                self._broken.pop(job_id, None)
            except SQLAlchemyError:
                raise
            except Exception as error:  # noqa: BLE001  One job whose record is damaged must not keep all others waiting.
                self._tell_broken(job_id, error)

    def _settle(self, job_id: str) -> None:
        for _ in range(MAX_ACTIONS):
            if self._is_ending:
                return
            with self._db.reading() as connection:
                job = jobs.get(connection, job_id)
                rows = attempts.of_job(connection, job_id)
            if job is None or job.state in OVER:
                return
            heard = [self._heard(row, is_newest=row is rows[-1]) for row in rows]
            facts = JobFacts(
                wanted=job.wanted, wanted_since_s=job.wanted_s, max_attempts=job.max_attempts, attempts=tuple(heard)
            )
            action = next_action(facts, now_s=self._clock(), bounds=self._bounds)
            if action is None or not self._deeds.do(action, job, rows):
                return

    def _heard(self, row: Row, *, is_newest: bool) -> Attempt:
        """What is known of an attempt. Ray is asked only where its word counts."""
        lease_until_s = row.lease_until_s
        if lease_until_s is not None:
            lease_until_s = max(lease_until_s, self._listening_since_s + self._bounds.lease_s)
        is_silent = lease_until_s is None or lease_until_s <= self._clock()
        is_over = row.state in ("ended", "lost")
        asks = is_newest and not row.was_taken_away and (row.outcome in (None, "failed") if is_over else is_silent)
        return Attempt(
            number=row.number,
            state=row.state,
            created_s=max(row.created_s, self._listening_since_s + self._bounds.lease_s - self._bounds.launch_s),
            lease_until_s=lease_until_s,
            outcome=row.outcome,
            message=row.message,
            ray_status=self._ray.status(row.submission_id) if asks else None,
            may_be_retried=row.may_be_retried,
            was_taken_away=row.was_taken_away,
        )

    def _tell_broken(self, job_id: str, error: Exception) -> None:
        if self._broken.get(job_id) != repr(error):
            self._broken[job_id] = repr(error)
            log.error("job %s cannot be looked after", job_id, exc_info=error, extra={"job_id": job_id})
