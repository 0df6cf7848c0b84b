"""The pools of a job: how many replicas are wanted of each role, and which wish its driver has obeyed.

Every change of what is wanted raises `generation`. A change names the generation that it saw, so of two people who
change the same pool at once one is told.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Row, select, update

from rlhf_cluster.config.job import JobConfig
from rlhf_cluster.service.store.tables import pools
from rlhf_cluster.service.store.upserts import insert_into

ORDER = ("rollout", "reward", "reference", "learner")


def ensure(connection: Connection, job_id: str, config: JobConfig) -> None:
    """The pools that the job has, as its config sizes them: generation 1, which a driver obeys by starting."""
    auto = config.autoscale
    rows = [
        {
            "job_id": job_id,
            "pool": pool,
            "replicas": replicas,
            "mode": "auto" if auto and pool == "rollout" else "manual",
            "min_replicas": auto.min_workers if auto and pool == "rollout" else None,
            "max_replicas": auto.max_workers if auto and pool == "rollout" else None,
            "generation": 1,
            "observed_generation": 1,
        }
        for pool, replicas in _sizes(config).items()
    ]
    connection.execute(insert_into(connection.dialect.name, pools).on_conflict_do_nothing(), rows)


def _sizes(config: JobConfig) -> dict[str, int]:
    sizes = {"learner": config.learner.num_ranks}
    if config.generates:
        sizes["rollout"] = config.rollout.num_workers
    if config.has_reward_servers:
        sizes["reward"] = config.reward_server.num_workers
    if "reference" in config.algorithm.needs:
        sizes["reference"] = config.reference.num_workers
    return sizes


def of_job(connection: Connection, job_id: str) -> Sequence[Row]:
    """Rollout first, the learner last."""
    rows = connection.execute(select(pools).where(pools.c.job_id == job_id)).all()
    return sorted(rows, key=lambda row: ORDER.index(row.pool))


def get(connection: Connection, job_id: str, pool: str) -> Row | None:
    return connection.execute(select(pools).where(pools.c.job_id == job_id, pools.c.pool == pool)).one_or_none()


def want(
    connection: Connection,
    job_id: str,
    pool: str,
    *,
    generation: int,
    mode: str,
    replicas: int | None,
    min_replicas: int | None,
    max_replicas: int | None,
) -> Row | None:
    """None where `generation` is not the current one, or there is no such pool. Without `replicas`, which a policy is
    to choose, the number stays the one that was."""
    done = connection.execute(
        update(pools)
        .where(pools.c.job_id == job_id, pools.c.pool == pool, pools.c.generation == generation)
        .values(
            generation=pools.c.generation + 1,
            mode=mode,
            replicas=pools.c.replicas if replicas is None else replicas,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
        )
    )
    return get(connection, job_id, pool) if done.rowcount == 1 else None


def observed(connection: Connection, job_id: str, pool: str, *, generation: int) -> None:
    """The driver has obeyed `generation`; hearing of an older one later changes nothing."""
    connection.execute(
        update(pools)
        .where(pools.c.job_id == job_id, pools.c.pool == pool, pools.c.observed_generation < generation)
        .values(observed_generation=generation)
    )
