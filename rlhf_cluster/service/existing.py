"""The job or the label set that a path names, or the problem that answers instead."""

from __future__ import annotations

from sqlalchemy import Connection, Row

from rlhf_cluster.service.problems import ApiProblem, not_found
from rlhf_cluster.service.store import jobs, label_sets
from rlhf_cluster.wire.jobs import OVER


def job(connection: Connection, job_id: str) -> Row:
    """By its id alone; `GET /jobs?ref=` finds one by name or prefix. Raises 404."""
    row = jobs.get(connection, job_id)
    if row is None:
        raise not_found("job", job_id)
    return row


def unfinished_job(connection: Connection, job_id: str) -> Row:
    """Raises 404, and 409 where nothing can be asked of it any more."""
    row = job(connection, job_id)
    if row.state in OVER:
        why = f": {row.message}" if row.message else ""
        next_step = "" if row.state == "succeeded" else "retry goes on with it, "
        detail = f"job {row.name!r} has {_ended(row.state)}{why}; {next_step}clone starts it anew"
        raise ApiProblem(409, "job_is_over", detail)
    return row


def label_set(connection: Connection, name: str) -> Row:
    """Raises 404."""
    row = label_sets.get(connection, name)
    if row is None:
        raise not_found("label set", name)
    return row


def _ended(state: str) -> str:
    return "been cancelled" if state == "cancelled" else state
