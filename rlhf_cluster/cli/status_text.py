"""A view of a job as text: what it does, what it waits for, its roles and its workers."""

from __future__ import annotations

from pathlib import Path

from rlhf_cluster.cli.control import OUTCOMES
from rlhf_cluster.cli.output import table
from rlhf_cluster.cli.words import columns, gib, progress, sizing, span
from rlhf_cluster.driver.claim import DriverView
from rlhf_cluster.driver.observers.excerpt import excerpt
from rlhf_cluster.records.members import JobView, MemberView, PoolView

OLD_S = 10.0
"""A living driver writes a view about every second; one this old is worth a word."""
WORKING = ("serving", "adopting")


def render(view: JobView | None, *, driver: DriverView | None, job_dir: Path, now_s: float) -> str:
    """`driver` is the newest claim on the job, alive or not."""
    if view is None:
        return f"{job_dir}: {_driver(view, driver=driver, job_dir=job_dir)}"
    job = _job(view, driver=driver, job_dir=job_dir, age_s=now_s - view.time_s)
    return "\n\n".join(filter(None, [job, render_workers(view)]))


def render_workers(view: JobView) -> str:
    """The roles, and every worker."""
    members = [member for pool in view.pools for member in pool.members]
    parts = [_pools(view.pools) if view.pools else "", _members(members) if members else ""]
    return "\n\n".join(filter(None, parts))


def _job(view: JobView, *, driver: DriverView | None, job_dir: Path, age_s: float) -> str:
    state = ", ".join(filter(None, [view.state, progress(view), excerpt(view.phase)]))
    late = age_s > OLD_S and driver is not None and driver.is_alive is True
    lines = [
        ("job", f"{excerpt(view.job_name)}: {state}"),
        ("driver", _driver(view, driver=driver, job_dir=job_dir)),
        ("rollouts", f"{view.num_in_flight} in flight, {view.num_complete} complete"),
        ("waits for", excerpt(view.waiting_for, width=600)),
        ("bottleneck", excerpt(view.bottleneck, width=600)),
        ("guards", excerpt(view.guards, width=600)),
        *map(_scaling, view.pools),
        ("seen", f"{span(age_s)} ago" + (", and nothing since: its driver runs, but is slow or stuck" if late else "")),
    ]
    return columns(lines)


def _driver(view: JobView | None, *, driver: DriverView | None, job_dir: Path) -> str:
    if driver is None or driver.is_alive is False:
        return _gone(view, driver=driver, job_dir=job_dir)
    who = f"number {driver.epoch}, pid {driver.process_id} on {driver.host}"
    if driver.is_alive is None:
        who += "; whether it still runs cannot be seen from here"
    if view is None or view.epoch < driver.epoch:
        return f"{who}; it has not told its status yet"
    return who


def _gone(view: JobView | None, *, driver: DriverView | None, job_dir: Path) -> str:
    if view is not None and view.state == "succeeded":
        return "none; the job is done"
    if view is not None and view.state in OUTCOMES:
        return f"none; `rlhf resume {job_dir}` goes on"
    pid = f" (pid {driver.process_id})" if driver and driver.process_id else ""
    return f"the driver of this job{pid} is gone; `rlhf resume {job_dir}` goes on"


def _pools(pools: tuple[PoolView, ...]) -> str:
    rows = [
        [
            pool.role,
            f"{sum(member.state in WORKING for member in pool.members)} of {pool.desired}",
            pool.num_restarts,
            excerpt(pool.last_error),
        ]
        for pool in pools
    ]
    return table(["role", "at work", "restarts", "last error"], rows)


def _scaling(pool: PoolView) -> tuple[str, str]:
    return sizing(
        f"{pool.role}s",
        mode=pool.mode,
        size=pool.desired,
        bounds=(pool.min_workers, pool.max_workers),
        recommended=pool.recommended,
        reason=pool.reason,
    )


def _members(members: list[MemberView]) -> str:
    headers = ["worker", "state", "version", "in flight", "tokens", "tokens/s", "busy", "memory", "reason"]
    return table(headers, [_row(member) for member in members])


def _row(member: MemberView) -> list[object]:
    return [
        member.worker_id,
        member.state,
        "" if member.version < 0 else member.version,
        member.num_in_flight,
        member.tokens_in_flight,
        f"{member.tokens_per_s:.0f}",
        f"{member.busy_share:.0%}",
        gib(member.rss_bytes),
        excerpt(member.reason),
    ]
