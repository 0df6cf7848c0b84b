"""Attempts to run a job, one after the other. Only the newest may write; those before it are fenced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from rlhf_cluster.service.ids import digest
from rlhf_cluster.service.ids import new_secret as make_secret
from rlhf_cluster.service.store.tables import attempts

OVER = ("ended", "lost")


def add(connection: Connection, job_id: str, number: int, *, submission_id: str, now_s: float) -> tuple[Row, str]:
    """The attempt, not yet submitted, and the secret of its relay, which nobody can ask for again."""
    secret = make_secret("attempt")
    connection.execute(
        insert(attempts).values(
            job_id=job_id,
            number=number,
            token_sha256=digest(secret),
            submission_id=submission_id,
            state="created",
            created_s=now_s,
        )
    )
    return connection.execute(select(attempts).where(*_is(job_id, number))).one(), secret


def renew_submission(connection: Connection, job_id: str, number: int) -> tuple[Row, str]:
    """For an attempt that is submitted again: another secret, and with it another id at Ray, which may still be busy
    with the submission before. A relay of that one comes with a secret that is worth nothing, and ends."""
    secret = make_secret("attempt")
    hashed = digest(secret)
    changed = update(attempts).where(*_is(job_id, number)).returning(attempts)
    values = {"token_sha256": hashed, "submission_id": f"{job_id}-{number}-{hashed[:8]}"}
    return connection.execute(changed.values(values)).one(), secret


def of_job(connection: Connection, job_id: str) -> Sequence[Row]:
    """Oldest first."""
    return connection.execute(select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)).all()


def newest(connection: Connection, job_id: str) -> Row | None:
    return connection.execute(
        select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number.desc()).limit(1)
    ).one_or_none()


def is_current(connection: Connection, attempt: Row) -> bool:
    """Whether it may still write. Asked in the transaction of the write, whatever `attempt` was when it was read."""
    last = newest(connection, attempt.job_id)
    return last is not None and last.number == attempt.number and last.state not in OVER


def submitted(connection: Connection, job_id: str, number: int, *, now_s: float) -> bool:
    """Its driver has time to register from now on. False where it was faster than whoever submitted it."""
    done = connection.execute(
        update(attempts)
        .where(*_is(job_id, number), attempts.c.state == "created")
        .values(state="submitted", created_s=now_s)
    )
    return done.rowcount == 1


def register(
    connection: Connection, job_id: str, number: int, *, host: str, process_id: int, lease_until_s: float
) -> None:
    """Its driver runs there, and counts as alive until the lease runs out."""
    _go_on(connection, job_id, number, state="running", host=host, process_id=process_id, lease_until_s=lease_until_s)


def renew(connection: Connection, job_id: str, number: int, *, lease_until_s: float) -> None:
    _go_on(connection, job_id, number, lease_until_s=lease_until_s)


def end(
    connection: Connection,
    job_id: str,
    number: int,
    *,
    outcome: str,
    exit_code: int | None,
    message: str,
    may_be_retried: bool,
    now_s: float,
) -> None:
    """As it was reported. The first word about an attempt's end is the last one."""
    _go_on(
        connection,
        job_id,
        number,
        state="ended",
        outcome=outcome,
        exit_code=exit_code,
        message=message,
        may_be_retried=may_be_retried,
        ended_s=now_s,
    )


def lose(connection: Connection, job_id: str, number: int, *, message: str, now_s: float) -> None:
    """Nobody reported its end; whatever is left of it is fenced from now on."""
    _go_on(connection, job_id, number, state="lost", message=message, ended_s=now_s)


def excuse(connection: Connection, job_id: str, number: int) -> None:
    """Its end does not count against the job."""
    connection.execute(update(attempts).where(*_is(job_id, number)).values(was_taken_away=True))


def _go_on(connection: Connection, job_id: str, number: int, **values: Any) -> None:
    connection.execute(update(attempts).where(*_is(job_id, number), attempts.c.state.not_in(OVER)).values(**values))


def _is(job_id: str, number: int) -> tuple[Any, Any]:
    return attempts.c.job_id == job_id, attempts.c.number == number
