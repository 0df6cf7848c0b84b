"""The checkpoints that a job says it has written."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Row, select

from rlhf_cluster.service.store.tables import checkpoints
from rlhf_cluster.service.store.upserts import insert_into


def add(connection: Connection, job_id: str, *, step: int, path: str, time_s: float) -> None:
    """A resumed job can write the one of a step again; the newer one counts."""
    statement = insert_into(connection.dialect.name, checkpoints).values(
        job_id=job_id, step=step, path=path, time_s=time_s
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["job_id", "step"],
            set_={"path": statement.excluded.path, "time_s": statement.excluded.time_s},
        )
    )


def of_job(connection: Connection, job_id: str) -> Sequence[Row]:
    """Newest first."""
    return connection.execute(
        select(checkpoints).where(checkpoints.c.job_id == job_id).order_by(checkpoints.c.step.desc())
    ).all()
