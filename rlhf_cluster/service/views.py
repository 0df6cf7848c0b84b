"""From rows to messages: a job, its pools and its workers, as its driver saw them last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from sqlalchemy import Row

from rlhf_cluster.config.changed import changed
from rlhf_cluster.records.members import MemberView, RoleTime
from rlhf_cluster.wire.jobs import Job, JobDetail, Pool, PoolName, Worker

POOLS: dict[str, PoolName] = {
    "rollout worker": "rollout",
    "reward server": "reward",
    "reference scorer": "reference",
    "learner": "learner",
}
"""Roles as drivers name them -> pools as people do."""


def job_of(row: Row) -> Job:
    return Job.model_validate({**row._mapping, "unit": _unit(row)})


def detail_of(row: Row, *, num_attempts: int) -> JobDetail:
    view = row.view or {}
    return JobDetail.model_validate(
        {
            **row._mapping,
            "unit": _unit(row),
            "changed": changed(row.config),
            "num_attempts": num_attempts,
            "seen_s": row.view_s,
            **{key: str(view.get(key, "")) for key in ("phase", "waiting_for", "bottleneck")},
            "time_split": [_whole(RoleTime, each) for each in view.get("time_split", ())],
        }
    )


def pool_of(row: Row, view: Mapping[str, Any] | None) -> Pool:
    """`row` says what is wanted, the driver's `view` what is there."""
    seen = _pools(view).get(row.pool, {})
    workers = [worker for worker in workers_of(view) if worker.pool == row.pool]
    reasons = [worker.reason for worker in workers if worker.state == "pending" and worker.reason]
    return Pool.model_validate(
        {
            **row._mapping,
            "replicas": seen.get("desired", row.replicas) if row.mode == seen.get("mode") == "auto" else row.replicas,
            "reason": seen.get("reason", ""),
            "recommended": seen.get("recommended") or None,
            "is_elastic": row.pool != "learner",
            "num_serving": _count(workers, "serving", "adopting"),
            "num_pending": _count(workers, "pending", "starting"),
            "num_draining": _count(workers, "draining"),
            "num_restarts": seen.get("num_restarts", 0),
            "pending_reason": "; ".join(dict.fromkeys(reasons)),
            "last_error": seen.get("last_error", ""),
            "workers": workers,
        }
    )


def workers_of(view: Mapping[str, Any] | None) -> list[Worker]:
    """All of them, lost ones too, pool by pool. What an older driver did not say of one is as it is by default."""
    newest = max((member.get("version", -1) for member in _members(view, "learner")), default=-1)
    return [
        Worker.model_validate(
            {**_whole(MemberView, member), "pool": pool, "lag": _lag(member, newest) if pool == "rollout" else 0}
        )
        for pool in POOLS.values()
        for member in _members(view, pool)
    ]


def pool_of_worker(view: Mapping[str, Any] | None, worker_id: str) -> PoolName | None:
    """Of a worker that is there and not lost."""
    found = (worker.pool for worker in workers_of(view) if worker.worker_id == worker_id and worker.state != "lost")
    return next(found, None)


def _unit(row: Row) -> str:
    """As `JobConfig.unit` says; a list of jobs is not to check every job's whole configuration for it."""
    return "steps" if row.config.get("train", {}).get("num_steps") else "prompts"


def _lag(member: Mapping[str, Any], newest: int) -> int:
    version = member.get("version", -1)
    return max(0, newest - version) if version >= 0 else 0


def _pools(view: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    return {POOLS[pool["role"]]: pool for pool in (view or {}).get("pools", ()) if pool.get("role") in POOLS}


def _members(view: Mapping[str, Any] | None, pool: str) -> Sequence[Mapping[str, Any]]:
    members = _pools(view).get(pool, {}).get("members", ())
    return [member for member in members if member.get("worker_id")]


def _whole(kind: type[MemberView | RoleTime], told: Mapping[str, Any]) -> dict[str, Any]:
    """With what is left out: defaults, and for what has none, nothing."""
    nothing = {"str": "", "float": 0.0}
    return {
        field.name: nothing.get(str(field.type)) if field.default is MISSING else field.default
        for field in fields(kind)
    } | dict(told)


def _count(workers: Sequence[Worker], *states: str) -> int:
    return sum(worker.state in states for worker in workers)
