"""Pools of a running job: how many replicas each role has, wanted and there. Changed while the job runs."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, Row

from rlhf_cluster.service import existing
from rlhf_cluster.service.asking import ask
from rlhf_cluster.service.auth import Reader, Submitter
from rlhf_cluster.service.etags import NOT_MODIFIED, IfMatch, IfNoneMatch, check_match, fresh
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import pools
from rlhf_cluster.service.views import pool_of
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.jobs import Pool, PoolName, SetPool

router = APIRouter(prefix="/jobs/{job_id}/pools", tags=["pools"], route_class=SharedRoute)
AUTOMATIC = ("rollout",)
"""Whose size a policy can choose: it looks at who waits for the rollouts."""


@router.get("")
def list_pools(request: Request, caller: Reader, job_id: str) -> Page[Pool]:
    with request.app.state.service.db.reading() as connection:
        job = existing.job(connection, job_id)
        return Page(items=[pool_of(row, job.view) for row in pools.of_job(connection, job_id)])


@router.get("/{pool}", response_model=Pool, responses=NOT_MODIFIED)
def show_pool(
    request: Request,
    response: Response,
    caller: Reader,
    job_id: str,
    pool: PoolName,
    if_none_match: IfNoneMatch = None,
) -> Pool | Response:
    with request.app.state.service.db.reading() as connection:
        job = existing.job(connection, job_id)
        row = _pool(connection, job, pool)
    return fresh(pool_of(row, job.view), row.generation, has=if_none_match, response=response)


@router.put("/{pool}", status_code=202, response_model=Pool)
def set_pool(
    request: Request,
    response: Response,
    caller: Submitter,
    job_id: str,
    pool: PoolName,
    body: SetPool,
    if_match: IfMatch = None,
) -> Pool | Response:
    """How many replicas it shall have. `observed_generation` reaches `generation` when the driver has obeyed, and
    `num_serving` the number when they are there."""
    with request.app.state.service.db.writing() as connection:
        job = existing.unfinished_job(connection, job_id)
        row = _pool(connection, job, pool)
        _refuse_fixed(job, pool, body)
        check_match(if_match, row.generation, what=f"{pool} pool", is_required=True)
        wanted = pools.want(connection, job_id, pool, generation=row.generation, **_wish(body, row))
        if wanted is None:
            raise ApiProblem(412, "changed_meanwhile", f"the {pool} pool was changed at the same time: read it again")
        ask(connection, job, _command(pool, body), who=caller.name, now_s=time.time())
    return fresh(pool_of(wanted, job.view), wanted.generation, has=None, response=response)


def _pool(connection: Connection, job: Row, pool: str) -> Row:
    row = pools.get(connection, job.job_id, pool)
    if row is None:
        has = ", ".join(each.pool for each in pools.of_job(connection, job.job_id))
        raise ApiProblem(404, "not_found", f"job {job.name!r} has no {pool} pool; it has {has}")
    return row


def _refuse_fixed(job: Row, pool: str, body: SetPool) -> None:
    if pool == "learner":
        detail = (
            f"the learner of {job.name!r} is one group of ranks that train together, so it cannot grow or shrink while "
            "the job runs: set learner.num_ranks in a new job"
        )
        raise ApiProblem(409, "pool_not_elastic", detail)
    if body.mode == "auto" and pool not in AUTOMATIC:
        detail = (
            f'mode = "auto" can be had for {", ".join(AUTOMATIC)}; give the {pool} pool mode = "manual" and replicas'
        )
        raise ApiProblem(409, "pool_not_automatic", detail)


def _wish(body: SetPool, row: Row) -> dict[str, Any]:
    if body.mode == "manual":
        return {"mode": "manual", "replicas": body.replicas, "min_replicas": None, "max_replicas": None}
    least, most = body.min_replicas or 1, body.max_replicas or 1
    return {
        "mode": "auto",
        "replicas": min(max(row.replicas, least), most),
        "min_replicas": least,
        "max_replicas": most,
    }


def _command(pool: str, body: SetPool) -> dict[str, Any]:
    if body.mode == "manual":
        return {"command": "Scale", "role": pool, "num_workers": body.replicas}
    return {
        "command": "Autoscale",
        "role": pool,
        "min_workers": body.min_replicas,
        "max_workers": body.max_replicas,
    }
