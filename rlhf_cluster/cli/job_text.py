"""Jobs, pools, workers and attempts of a service as text, with what others have written made printable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_cluster.cli.output import table
from rlhf_cluster.cli.words import ago, columns, gib, moment, number, progress, sizing
from rlhf_cluster.driver.observers.excerpt import excerpt

if TYPE_CHECKING:
    from rlhf_cluster.wire.jobs import Attempt, Job, JobDetail, Pool, Worker

WIDE = 600


def job_table(jobs: Sequence[Job], *, now_s: float) -> str:
    headers = ["job", "name", "state", "step", "owner", "submitted", "message"]
    return table(headers, [_job_row(job, now_s=now_s) for job in jobs])


def _job_row(job: Job, *, now_s: float) -> list[object]:
    return [
        job.job_id,
        excerpt(job.name, width=32),
        job.state,
        f"{job.step}/{job.num_steps}{'' if job.unit == 'steps' else f' {job.unit}'}",
        excerpt(job.owner, width=20),
        ago(job.created_s, now_s=now_s),
        excerpt(job.message, width=60),
    ]


def summary(job: JobDetail, pools: Sequence[Pool], *, now_s: float) -> str:
    """What it does and what it waits for."""
    state = ", ".join(filter(None, [job.state, progress(job), excerpt(job.phase)]))
    return columns(
        [
            ("job", f"{excerpt(job.name)} ({job.job_id}): {state}"),
            ("message", excerpt(job.message, width=WIDE)),
            ("waits for", excerpt(job.waiting_for, width=WIDE)),
            ("bottleneck", excerpt(job.bottleneck, width=WIDE)),
            *map(_sizing, pools),
            ("attempts", f"{job.num_attempts}; {job.max_attempts} may fail"),
            ("seen", ago(job.seen_s, now_s=now_s)),
        ]
    )


def _sizing(pool: Pool) -> tuple[str, str]:
    return sizing(
        f"{pool.pool} workers",
        mode=pool.mode,
        size=pool.replicas,
        bounds=(pool.min_replicas, pool.max_replicas),
        recommended=pool.recommended,
        reason=pool.reason,
    )


def facts(job: JobDetail) -> str:
    """What people said of it, and when it was what."""
    labels = ", ".join(f"{key}={value}" for key, value in job.labels.items())
    return columns(
        [
            ("owner", excerpt(job.owner)),
            ("labels", excerpt(labels, width=WIDE)),
            ("notes", excerpt(job.notes, width=WIDE)),
            ("submitted", moment(job.created_s)),
            ("started", moment(job.started_s)),
            ("ended", moment(job.ended_s)),
        ]
    )


def changed(settings: Mapping[str, Any]) -> str:
    """What differs from the defaults."""
    return table(
        ["setting", "value"], [[excerpt(key), excerpt(str(value), width=WIDE)] for key, value in settings.items()]
    )


def attempt_table(attempts: Sequence[Attempt]) -> str:
    rows = [
        [
            attempt.number,
            attempt.outcome or attempt.state,
            moment(attempt.created_s),
            moment(attempt.ended_s),
            excerpt(attempt.host or ""),
            "" if attempt.exit_code is None else attempt.exit_code,
            excerpt(attempt.message, width=WIDE),
        ]
        for attempt in attempts
    ]
    return table(["attempt", "outcome", "begun", "ended", "host", "exit code", "message"], rows)


def pool_table(pools: Sequence[Pool]) -> str:
    """And below it, in sentences, why one is not as large as it should be."""
    rows = [
        [
            pool.pool,
            f"{pool.num_serving} of {pool.replicas}",
            _wish(pool),
            pool.num_pending,
            pool.num_draining,
            pool.num_restarts,
        ]
        for pool in pools
    ]
    reasons = columns([(pool.pool, excerpt(_why(pool), width=WIDE)) for pool in pools])
    shown = table(["pool", "at work", "size", "pending", "draining", "restarts"], rows)
    return f"{shown}\n\n{reasons}" if reasons else shown


def _why(pool: Pool) -> str:
    """A worker waits, or was lost."""
    return "; ".join(filter(None, [pool.pending_reason, pool.last_error]))


def _wish(pool: Pool) -> str:
    if not pool.is_elastic:
        return "fixed"
    size = f"auto {pool.min_replicas}..{pool.max_replicas}" if pool.mode == "auto" else "manual"
    return size if pool.observed_generation >= pool.generation else f"{size}, not obeyed yet"


def worker_table(workers: Sequence[Worker]) -> str:
    headers = ["worker", "state", "version", "lag", "in flight", "tokens", "tokens/s", "busy", "memory", "reason"]
    return table(headers, [_worker_row(worker) for worker in workers])


def _worker_row(worker: Worker) -> list[object]:
    return [
        excerpt(worker.worker_id),
        worker.state,
        "" if worker.version < 0 else worker.version,
        worker.lag or "",
        worker.num_in_flight,
        worker.tokens_in_flight,
        number(worker.tokens_per_s),
        "" if worker.busy_share is None else f"{worker.busy_share:.0%}",
        gib(worker.rss_bytes),
        excerpt(worker.reason),
    ]


def status_of(job: JobDetail, pools: Sequence[Pool], *, now_s: float) -> str:
    """As `rlhf status` shows it: the job, its pools, and every worker."""
    workers = [worker for pool in pools for worker in pool.workers]
    parts = [
        summary(job, pools, now_s=now_s),
        pool_table(pools) if pools else "",
        worker_table(workers) if workers else "",
    ]
    return "\n\n".join(filter(None, parts))
