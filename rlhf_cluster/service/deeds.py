"""Does what `flow/attempts.py` has decided for a job: at Ray, in the database, and in words on the job's timeline."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, Row

from rlhf_cluster.flow.attempts import ABSENT, Action, AskToStop, Begin, End, Excuse, GiveUp, StopByForce
from rlhf_cluster.service.patient_ray import PatientRay
from rlhf_cluster.service.ray_jobs import OURS, RayAway, RayRefused
from rlhf_cluster.service.settings import ServiceSettings
from rlhf_cluster.service.store import attempts, commands, events, jobs
from rlhf_cluster.service.store.database import Database

ENTRYPOINT = f"exec {shlex.quote(sys.executable)} -m rlhf_cluster.relay"
"""Without the shell in between, which would not pass a signal on."""
LEVELS = {"succeeded": "info", "cancelled": "info", "failed": "error"}
SERVICE = "service"
"""Who asked for a command that no person gave."""
FORCED = "Ray is ending its processes"

log = logging.getLogger(__name__)


class Deeds:
    def __init__(
        self, db: Database, ray: PatientRay, settings: ServiceSettings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._db = db
        self._ray = ray
        self._settings = settings
        self._clock = clock

    def do(self, action: Action, job: Row, rows: Sequence[Row]) -> bool:
        """Whether there may be more to do for the job now. `rows` are its attempts, oldest first."""
        match action:
            case Begin(number):
                return self._begin(job, number, next((row for row in rows if row.number == number), None))
            case GiveUp(number, why):
                return self._give_up(job, rows[-1], why)
            case Excuse(number, why):
                return self._excuse(job, number, why)
            case AskToStop(number):
                return self._ask_to_stop(job, number)
            case StopByForce(number):
                return self._stop_by_force(job, rows[-1])
            case End(state, message):
                return self._end(job, rows[-1] if rows else None, state, message)

    def _begin(self, job: Row, number: int, row: Row | None) -> bool:
        if not self._ray.may_be_asked():
            return self._wait(job, self._ray.trouble)
        # Who has died after submitting it must not give it a new secret: the relay that runs has the old one.
        status = ABSENT if row is None else self._ray.status(row.submission_id)
        if status is None:
            return self._wait(job, self._ray.trouble or "Ray does not say whether the job was submitted")
        if status == ABSENT:
            row, secret = self._prepare(job, number, row)
            try:
                self._submit(job, row, secret)
            except RayAway as error:
                return self._wait(job, str(error))
            except RayRefused as error:
                return self._refused(job, row, str(error))
        assert row is not None
        return self._submitted(job, row)

    def _prepare(self, job: Row, number: int, row: Row | None) -> tuple[Row, str]:
        with self._db.writing() as connection:
            if row is not None:
                return attempts.renew_submission(connection, job.job_id, number)
            submission_id = f"{job.job_id}-{number}"
            return attempts.add(connection, job.job_id, number, submission_id=submission_id, now_s=self._clock())

    def _submit(self, job: Row, row: Row, secret: str) -> None:
        self._ray.submit(
            row.submission_id,
            ENTRYPOINT,
            env={"RLHF_SERVICE_URL": self._settings.url, "RLHF_ATTEMPT_TOKEN": secret},
            metadata={OURS: job.job_id, "rlhf_attempt": str(row.number), "name": job.name},
            num_cpus=self._settings.driver_cpus,
        )

    def _submitted(self, job: Row, row: Row) -> bool:
        now_s = self._clock()
        with self._db.writing() as connection:
            was_slow = attempts.submitted(connection, job.job_id, row.number, now_s=now_s)
            if was_slow:
                jobs.set_state(connection, job.job_id, "launching", message="", now_s=now_s)
            text = f"attempt {row.number} was submitted to Ray as {row.submission_id}"
            self._tell(connection, job, "AttemptSubmitted", text, body={"attempt": row.number})
        return True

    def _refused(self, job: Row, row: Row, why: str) -> bool:
        with self._db.writing() as connection:
            attempts.end(
                connection,
                job.job_id,
                row.number,
                outcome="failed",
                exit_code=None,
                message=why,
                may_be_retried=False,
                now_s=self._clock(),
            )
            text = f"attempt {row.number} was refused: {why}"
            self._tell(connection, job, "AttemptRefused", text, level="error", body={"attempt": row.number})
        return True

    def _wait(self, job: Row, why: str) -> bool:
        message = f"waiting for Ray: {why}"
        state = job.state if job.state == "queued" else "launching"  # nothing of it runs
        if (job.state, job.message) != (state, message):
            with self._db.writing() as connection:
                jobs.set_state(connection, job.job_id, state, message=message, now_s=self._clock())
        return False

    def _give_up(self, job: Row, row: Row, why: str) -> bool:
        if row.lease_until_s is None and row.state != "created":
            last_line = self._ray.last_line(row.submission_id)
            why = f"{why}; the last it wrote: {last_line}" if last_line else why
        with self._db.writing() as connection:
            newest = attempts.newest(connection, job.job_id)
            if newest is None or (newest.state, newest.lease_until_s) != (row.state, row.lease_until_s):
                return True  # it was heard of while Ray was asked: look again
            attempts.lose(connection, job.job_id, row.number, message=why, now_s=self._clock())
            text = f"attempt {row.number} was given up: {why}"
            self._tell(connection, job, "AttemptLost", text, level="warning", body={"attempt": row.number})
        self._ray.owe_stop(row.submission_id)
        return True

    def _excuse(self, job: Row, number: int, why: str) -> bool:
        with self._db.writing() as connection:
            attempts.excuse(connection, job.job_id, number)
            text = f"attempt {number} does not count: {why}"
            self._tell(connection, job, "AttemptExcused", text, body={"attempt": number})
        return True

    def _ask_to_stop(self, job: Row, number: int) -> bool:
        now_s = self._clock()
        with self._db.reading() as connection:
            asked, _ = commands.of_job(connection, job.job_id, limit=200)
        if any(row.body.get("command") == "Stop" and row.created_s >= job.wanted_s for row in asked):
            return False
        with self._db.writing() as connection:
            commands.add(
                connection,
                job.job_id,
                {"command": "Stop"},
                created_by=SERVICE,
                now_s=now_s,
                expires_s=now_s + self._settings.cancel_s,  # found later, it would end a job that is tried again
            )
            jobs.set_state(connection, job.job_id, "stopping", message="it ends after the step under way", now_s=now_s)
            text = f"asked to stop; Ray ends it if it has not within {self._settings.cancel_s:g} s"
            self._tell(connection, job, "StopAsked", text, body={"attempt": number})
        return False

    def _stop_by_force(self, job: Row, row: Row) -> bool:
        if not self._ray.owe_stop(row.submission_id) or job.message == FORCED:
            return False
        with self._db.writing() as connection:
            jobs.set_state(connection, job.job_id, "stopping", message=FORCED, now_s=self._clock())
            self._tell(connection, job, "StopForced", FORCED, level="warning", body={"attempt": row.number})
        return False

    def _end(self, job: Row, row: Row | None, state: str, message: str) -> bool:
        now_s = self._clock()
        with self._db.writing() as connection:
            jobs.set_state(connection, job.job_id, state, message=message, now_s=now_s)
            for waiting in commands.waiting(connection, job.job_id, now_s=now_s):
                is_done = waiting.body.get("command") == "Stop"
                commands.answer(connection, waiting.command_id, ok=is_done, text="the job has ended", now_s=now_s)
            text = f"{state}: {message}" if message else state
            self._tell(connection, job, "JobOver", text, level=LEVELS[state], body={"state": state})
        if row is not None and row.state == "lost":
            self._ray.owe_stop(row.submission_id)
        return False

    def _tell(
        self,
        connection: Connection,
        job: Row,
        kind: str,
        text: str,
        *,
        level: str = "info",
        body: Mapping[str, object],
    ) -> None:
        events.add(
            connection,
            topic="jobs",
            job_id=job.job_id,
            time_s=self._clock(),
            step=job.step,
            kind=kind,
            text=text,
            level=level,
            body=body,
        )
        log.info("%s", text, extra={"job_id": job.job_id, **body})
