"""Takes in what a relay tells of its job, each message in one transaction: entries of the journal, the driver's view,
log lines, and the lease that they renew. A message that comes twice changes nothing; one of a former attempt, nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row

from rlhf_cluster.driver.record_json import build
from rlhf_cluster.records.members import JobView
from rlhf_cluster.service import asking
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.store import attempts, checkpoints, commands, events, jobs, logs, metrics, pools
from rlhf_cluster.service.store.columns import storable_text
from rlhf_cluster.service.timeline import tell
from rlhf_cluster.wire.jobs import OVER
from rlhf_cluster.wire.relay import Answered, Ended, Ingest

HAS_METRICS = ("StepDone", "Evaluated", "Generated")
MAX_KEY = 200
SEEN_STATES = ("running", "paused", "stopping")
"""What a view says that is a state of a job; its other states are ends, which the attempt's report tells."""
SIZES = {"rollout": "rollout", "reward": "reward_server", "reference": "reference"}
"""Pool -> the section of a job with its `num_workers`."""


def fence(connection: Connection, attempt: Row) -> Row:
    """The attempt's job, for the transaction that writes. Raises 409 when the attempt may not write any more."""
    job = jobs.get(connection, attempt.job_id)
    if job is None or not attempts.is_current(connection, attempt):
        why = "it has ended, was given up, or another attempt has taken its place"
        raise ApiProblem(409, "superseded", f"attempt {attempt.number} of {attempt.job_id} may not write: {why}")
    return job


def take_in(connection: Connection, attempt: Row, news: Ingest, *, now_s: float, lease_s: float) -> int:
    """Returns how many entries of the journal are in now. Raises 409, and 422 for a view that is none."""
    job = fence(connection, attempt)
    known = job.num_entries - news.first_entry
    fresh = news.entries[known:] if known >= 0 else []  # beyond a gap: it is told how far we are, and goes back
    if fresh:
        _take_entries(connection, job.job_id, fresh, now_s=now_s)
        jobs.took(connection, job.job_id, num_entries=job.num_entries + len(fresh))
    if news.view is not None:
        _take_view(connection, job, news.view, now_s=now_s)
    logs.add(connection, job.job_id, news.lines)
    attempts.renew(connection, job.job_id, attempt.number, lease_until_s=now_s + lease_s)
    return job.num_entries + len(fresh)


def _take_entries(connection: Connection, job_id: str, entries: Sequence[Mapping[str, Any]], *, now_s: float) -> None:
    for told in tell(entries, now_s=now_s):
        if told.kind in HAS_METRICS:
            values = _numbers(told.body.get("metrics"))
            metrics.add(connection, job_id, step=told.step, time_s=told.time_s, values=values)
        elif told.kind == "CheckpointSaved":
            path = str(told.body.get("path"))
            checkpoints.add(connection, job_id, step=told.step, path=path, time_s=told.time_s)
        events.add(
            connection,
            job_id=job_id,
            topic=told.topic,
            kind=told.kind,
            level=told.level,
            time_s=told.time_s,
            step=told.step,
            text=told.text,
            body=told.body,
        )


def _numbers(values: Any) -> dict[str, float | None]:
    """Metrics by name; null where one was not finite."""
    items = values.items() if isinstance(values, Mapping) else ()
    return {
        storable_text(str(key))[:MAX_KEY]: value
        for key, value in items
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }


def _take_view(connection: Connection, job: Row, view: Mapping[str, Any], *, now_s: float) -> None:
    try:
        state = build(JobView, view, extra=True).state
    except ValueError as error:
        raise ApiProblem(422, "invalid_request", f"view: {error}") from error
    jobs.saw(connection, job.job_id, view, now_s=now_s)
    # A job that is to be cancelled is stopping, whatever its driver has heard of that.
    if job.wanted == "run" and state in SEEN_STATES and job.state not in (state, *OVER):
        jobs.set_state(connection, job.job_id, state, message="", now_s=now_s)


def with_pools(config: Mapping[str, Any], rows: Iterable[Row]) -> dict[str, Any]:
    """The whole job, its pools as they are wanted now: an attempt goes on with what the one before it was scaled to."""
    wanted = dict(config)
    for row in rows:
        if row.pool not in SIZES:
            continue
        size = row.replicas
        if row.pool == "rollout":
            is_auto = row.mode == "auto"
            size = min(max(size, row.min_replicas), row.max_replicas) if is_auto else size
            bounds = {"min_workers": row.min_replicas, "max_workers": row.max_replicas}
            wanted["autoscale"] = {**(config.get("autoscale") or {}), **bounds} if is_auto else None
        section = SIZES[row.pool]
        wanted[section] = {**wanted.get(section, {}), "num_workers": size}
    return wanted


def take_answer(connection: Connection, attempt: Row, command_id: str, answered: Answered, *, now_s: float) -> None:
    """What the driver said to a command. Raises 404 and 409."""
    job = fence(connection, attempt)
    command = commands.get(connection, command_id)
    if command is None or command.job_id != job.job_id:
        raise ApiProblem(404, "not_found", f"job {job.job_id} has no command {command_id!r}")
    if command.answered_s is not None:
        return
    asking.answered(connection, command, ok=answered.ok, text=answered.text, now_s=now_s)
    name = str(command.body.get("command"))
    _tell(
        connection,
        job,
        "CommandAnswered",
        f"{name}: {answered.text}",
        level="info" if answered.ok else "warning",
        body={"command_id": command_id, "command": command.body, "ok": answered.ok, "asked_by": command.created_by},
        now_s=now_s,
    )


def take_start(connection: Connection, attempt: Row, *, host: str, process_id: int, now_s: float) -> None:
    """On the timeline. The driver starts with the pools as they are wanted now, and so obeys that."""
    job = fence(connection, attempt)
    for row in pools.of_job(connection, job.job_id):
        pools.observed(connection, job.job_id, row.pool, generation=row.generation)
    text = f"attempt {attempt.number} runs on {host}, process {process_id}"
    body = {"attempt": attempt.number, "host": host, "process_id": process_id}
    _tell(connection, job, "AttemptStarted", text, body=body, now_s=now_s)


def take_end(connection: Connection, attempt: Row, ended: Ended, *, now_s: float) -> None:
    """How the attempt ended. What becomes of the job is not decided here."""
    job = fence(connection, attempt)
    attempts.end(
        connection,
        job.job_id,
        attempt.number,
        outcome=ended.outcome,
        exit_code=ended.exit_code,
        message=ended.message,
        may_be_retried=ended.may_be_retried,
        now_s=now_s,
    )
    text = f"attempt {attempt.number} {ended.outcome}: {ended.message}"
    level = "error" if ended.outcome == "failed" else "info"
    body = {"attempt": attempt.number, **ended.model_dump()}
    _tell(connection, job, "AttemptEnded", text, level=level, body=body, now_s=now_s)


def _tell(
    connection: Connection,
    job: Row,
    kind: str,
    text: str,
    *,
    body: Mapping[str, Any],
    now_s: float,
    level: str = "info",
) -> None:
    events.add(
        connection,
        topic="jobs",
        job_id=job.job_id,
        time_s=now_s,
        step=job.step,
        kind=kind,
        text=text,
        level=level,
        body=body,
    )
