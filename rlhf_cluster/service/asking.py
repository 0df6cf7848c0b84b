"""What people ask of a job: a command that its driver will find, a line in the timeline, and what its answer means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row

from rlhf_cluster.service.store import commands, events, jobs, pools
from rlhf_cluster.service.views import pool_of_worker

SIZES = ("Scale", "Autoscale")
"""Commands that obey what is wanted of a pool."""
LOOKED_AT = 500
"""Newest commands of a job among which the newest about a pool is searched."""


def ask(
    connection: Connection, job: Row, body: Mapping[str, Any], *, who: str, now_s: float, expires_s: float | None = None
) -> Row:
    """A command in the form of `driver/mailbox.py`; it waits until a driver takes it or `expires_s` has come."""
    note(connection, job, f"{who} asked: {in_words(body)}", now_s=now_s, body=body)
    return commands.add(connection, job.job_id, body, created_by=who, now_s=now_s, expires_s=expires_s)


def note(connection: Connection, job: Row, text: str, *, now_s: float, body: Mapping[str, Any] | None = None) -> None:
    """In the job's timeline."""
    events.add(
        connection,
        topic="jobs",
        job_id=job.job_id,
        time_s=now_s,
        step=job.step,
        kind="Asked",
        text=text,
        body=dict(body or {}),
    )


def in_words(body: Mapping[str, Any]) -> str:
    """`scale, role = rollout, num_workers = 3`."""
    name = str(body.get("command", "")).lower()
    return ", ".join([name, *(f"{key} = {value}" for key, value in body.items() if key != "command")])


def answered(connection: Connection, command: Row, *, ok: bool, text: str, now_s: float) -> None:
    """The driver's answer, and what follows from it for the pool that the command was about."""
    if command.answered_s is not None:
        return
    commands.answer(connection, command.command_id, ok=ok, text=text, now_s=now_s)
    kind = command.body.get("command")
    if ok and kind in SIZES:
        _observe(connection, command)
    elif ok and kind == "Drain":
        _shrink(connection, command)


def _observe(connection: Connection, command: Row) -> None:
    """Only the newest command about a pool says that what is wanted now is obeyed."""
    role = command.body["role"]
    pool = pools.get(connection, command.job_id, role)
    if pool is not None and command.command_id == _newest_size(connection, command.job_id, role):
        pools.observed(connection, command.job_id, role, generation=pool.generation)


def _newest_size(connection: Connection, job_id: str, role: str) -> str | None:
    rows, _ = commands.of_job(connection, job_id, limit=LOOKED_AT)
    sizes = (row for row in rows if row.body.get("command") in SIZES and row.body.get("role") == role)
    return next((row.command_id for row in sizes), None)


def _shrink(connection: Connection, command: Row) -> None:
    """A pool without the drained worker is what is wanted from now on, and what the driver has."""
    job = jobs.get(connection, command.job_id)
    name = pool_of_worker(job.view if job else None, command.body["worker_id"])
    pool = pools.get(connection, command.job_id, name) if name else None
    if pool is None or pool.mode == "auto" or pool.observed_generation < pool.generation or pool.replicas < 2:
        return
    wanted = pools.want(
        connection,
        command.job_id,
        pool.pool,
        generation=pool.generation,
        mode="manual",
        replicas=pool.replicas - 1,
        min_replicas=None,
        max_replicas=None,
    )
    if wanted is not None:
        pools.observed(connection, command.job_id, pool.pool, generation=wanted.generation)
