"""What changes of a job without becoming an event: its driver's view while it runs, and its log."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from rlhf_cluster.service.store.tables import jobs, logs

WITH_DRIVER = ("launching", "running", "paused", "stopping")


def views(connection: Connection) -> dict[str, float]:
    """Job -> when its driver's view came, of the jobs that have a driver."""
    query = select(jobs.c.job_id, jobs.c.view_s).where(jobs.c.state.in_(WITH_DRIVER), jobs.c.view_s.is_not(None))
    return dict(connection.execute(query).tuples().all())


def newest_line(connection: Connection) -> int:
    """0 where there is none."""
    return connection.execute(select(func.max(logs.c.line_id))).scalar_one() or 0


def lines_after(connection: Connection, line_id: int) -> dict[str, int]:
    """Job -> its newest line, of the jobs with lines that came after that one."""
    query = select(logs.c.job_id, func.max(logs.c.line_id)).where(logs.c.line_id > line_id).group_by(logs.c.job_id)
    return dict(connection.execute(query).tuples().all())
