"""The replicas of a job, one by one."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from rlhf_cluster.service import existing
from rlhf_cluster.service.api.lifecycle import accepted_command
from rlhf_cluster.service.asking import ask
from rlhf_cluster.service.auth import Caller, Reader, Submitter
from rlhf_cluster.service.idempotency import Done, Key, once
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.views import pool_of_worker, workers_of
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.jobs import Command, Worker

router = APIRouter(prefix="/jobs/{job_id}/workers", tags=["workers"], route_class=SharedRoute)
WANTED_S = 600.0
"""A driver that comes later has other workers under its care."""


@router.get("")
def list_workers(request: Request, caller: Reader, job_id: str) -> Page[Worker]:
    """Pool by pool, as the driver saw them last."""
    with request.app.state.service.db.reading() as connection:
        return Page(items=workers_of(existing.job(connection, job_id).view))


@router.post("/{worker_id}/drain", status_code=202, response_model=Command)
def drain_worker(request: Request, caller: Submitter, job_id: str, worker_id: str, key: Key = None) -> Response:
    """Retire it, its unfinished work handed over; its pool has one replica less from then on."""
    return _asked(request, caller, job_id, key, {"command": "Drain", "worker_id": worker_id})


@router.post("/{worker_id}/restart", status_code=202, response_model=Command)
def restart_worker(request: Request, caller: Submitter, job_id: str, worker_id: str, key: Key = None) -> Response:
    """Retire it, its unfinished work handed over, and have another take its place; its pool keeps its size."""
    return _asked(request, caller, job_id, key, {"command": "Restart", "worker_id": worker_id})


def _asked(request: Request, caller: Caller, job_id: str, key: str | None, body: dict[str, str]) -> Response:
    def work(connection: Connection) -> Done:
        job, now_s = existing.unfinished_job(connection, job_id), time.time()
        _refuse_fixed(job.view, body["worker_id"])
        return accepted_command(ask(connection, job, body, who=caller.name, now_s=now_s, expires_s=now_s + WANTED_S))

    return once(request, caller, key, None, work=work)


def _refuse_fixed(view: dict | None, worker_id: str) -> None:
    pool = pool_of_worker(view, worker_id)
    if pool is None:
        there = ", ".join(each.worker_id for each in workers_of(view) if each.state != "lost") or "none yet"
        raise ApiProblem(404, "not_found", f"there is no worker {worker_id!r}; at work are {there}")
    if pool == "learner":
        detail = f"{worker_id} is a rank of the learner, which is restarted as a whole or not at all"
        raise ApiProblem(409, "pool_not_elastic", detail)
