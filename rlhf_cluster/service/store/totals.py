"""Numbers over all jobs, as a monitoring system asks for them every few seconds."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Row, func, select

from rlhf_cluster.service.store.tables import jobs, latest_metrics, metric_keys

RUNNING = ("running", "paused")


def jobs_by_state(connection: Connection) -> dict[str, int]:
    query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
    return dict(connection.execute(query).tuples().all())


def steps_of_running(connection: Connection) -> dict[str, int]:
    """Job -> the step its driver is at."""
    query = select(jobs.c.job_id, jobs.c.step).where(jobs.c.state.in_(RUNNING))
    return dict(connection.execute(query).tuples().all())


def metrics_of_running(connection: Connection, keys: Sequence[str]) -> Sequence[Row]:
    """Rows of `job_id`, `key` and the newest `value`, where that is a number."""
    query = (
        select(latest_metrics.c.job_id, metric_keys.c.key, latest_metrics.c.value)
        .join(metric_keys)
        .join(jobs, jobs.c.job_id == latest_metrics.c.job_id)
        .where(jobs.c.state.in_(RUNNING), metric_keys.c.key.in_(keys), latest_metrics.c.value.is_not(None))
    )
    return connection.execute(query).all()
