"""`rlhf audit JOB_DIR`: the proof, from the ledger alone, that a job lost no prompt and trained on none twice."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rlhf_cluster.cli.failure import DONE, JOB_FAILED, NotFound
from rlhf_cluster.cli.output import emit, output_option, table
from rlhf_cluster.cli.reference import job_dir_argument

if TYPE_CHECKING:
    from rlhf_cluster.config import JobConfig
    from rlhf_cluster.flow.audit import AuditReport


@click.command
@job_dir_argument
@output_option
def audit(job_dir: Path, output: str) -> int:
    """Check the ledger of JOB_DIR, also while the job runs. Exit code 1 when a check fails."""
    from rlhf_cluster.driver.ledger import read_history
    from rlhf_cluster.driver.ledger.batches import unreadable
    from rlhf_cluster.flow.audit import audit as audited

    job = _job(job_dir)
    history = read_history(job_dir)
    if problems := unreadable(job_dir / "ledger", history):
        # A checkpoint may have been written meanwhile, and what it covers deleted.
        history = read_history(job_dir)
        problems = unreadable(job_dir / "ledger", history)
    bounds = {"max_staleness": job.train.max_staleness, "num_steps": job.train.num_steps}
    report = audited(history, **bounds, unreadable=problems)
    data = {"ok": report.ok, "job_dir": str(job_dir), **dataclasses.asdict(report)}
    emit(data, output=output, text=lambda: page(report, name=f"{job.name} in {job_dir}"))
    return DONE if report.ok else JOB_FAILED


def page(report: AuditReport, *, name: str) -> str:
    """The report on one page."""
    failed = sum(not check.ok for check in report.checks)
    verdict = f"FAILED: {failed} of {len(report.checks)} checks" if failed else f"OK: all {len(report.checks)} checks"
    checks = [("OK" if check.ok else "FAILED", check.name, check.sentence) for check in report.checks]
    sections = [f"Audit of {name}", table(("", "check", ""), checks), table(("prompts", ""), _fates(report))]
    if report.staleness:
        sections.append(table((f"staleness (at most {report.max_staleness})", "batches", ""), _bars(report)))
    return "\n\n".join([*sections, table(("job", ""), _facts(report)), verdict])


def _fates(report: AuditReport) -> list[tuple[str, object]]:
    return [
        ("trained on", report.num_trained),
        *((f"dropped: {reason}", number) for reason, number in report.num_dropped.items()),
        ("under way", report.num_outstanding),
        ("sent out again", report.num_lost),
    ]


def _bars(report: AuditReport) -> list[tuple[object, ...]]:
    most = max(report.staleness.values())
    return [(age, number, "#" * max(1, 40 * number // most)) for age, number in report.staleness.items()]


def _facts(report: AuditReport) -> list[tuple[str, str]]:
    oldest, newest = report.versions
    return [
        ("steps", f"{report.num_steps} accepted, {report.num_settled_steps} of them settled at a checkpoint"),
        ("updates done again", str(report.num_replays)),
        ("completions", f"{report.num_completions} trained on"),
        ("tokens", f"{report.num_tokens} trained on, {report.num_verified_tokens} of them of a verified version"),
        ("versions", f"{oldest} to {newest}" if newest >= 0 else "none"),
        ("workers", f"{len(report.workers)}: {', '.join(report.workers)}" if report.workers else "none"),
        ("drivers", f"{len(report.epochs)}: epochs {', '.join(map(str, report.epochs))}" if report.epochs else "none"),
        ("checkpoints", ", ".join(report.checkpoints) or "none"),
    ]


def _job(job_dir: Path) -> JobConfig:
    from rlhf_cluster.config.load import read_job

    if not (job_dir / "ledger").is_dir():
        raise NotFound(f"{job_dir} holds no ledger: the job has not sent out a prompt yet")
    return read_job(job_dir)
