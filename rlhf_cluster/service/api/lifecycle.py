"""What is asked of a whole job: to end, to wait, to go on, to write a checkpoint, to be tried again."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, Row

from rlhf_cluster.config.load import check
from rlhf_cluster.flow.attempts import is_held
from rlhf_cluster.service import existing
from rlhf_cluster.service.asking import ask, note
from rlhf_cluster.service.auth import Caller, Submitter
from rlhf_cluster.service.etags import tag
from rlhf_cluster.service.idempotency import Done, Key, once
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.store import attempts, jobs, pools
from rlhf_cluster.service.views import detail_of, job_of
from rlhf_cluster.wire.jobs import OVER, Command, Job, JobDetail

router = APIRouter(prefix="/jobs/{job_id}", tags=["lifecycle"])


@router.post("/cancel", status_code=202, response_model=Job)
def cancel_job(request: Request, caller: Submitter, job_id: str, key: Key = None) -> Response:
    """End it after its step, with a checkpoint; by force where it does not end by itself."""
    return once(request, caller, key, None, work=lambda connection: _want(connection, job_id, caller, "cancel"))


@router.post("/kill", status_code=202, response_model=Job)
def kill_job(request: Request, caller: Submitter, job_id: str, key: Key = None) -> Response:
    """End it now; what came after its last checkpoint is lost."""
    return once(request, caller, key, None, work=lambda connection: _want(connection, job_id, caller, "kill"))


@router.post("/pause", status_code=202, response_model=Command)
def pause_job(request: Request, caller: Submitter, job_id: str, key: Key = None) -> Response:
    """Send out no new prompts; its workers stay."""
    return _command(request, caller, job_id, key, "Pause")


@router.post("/resume", status_code=202, response_model=Command)
def resume_job(request: Request, caller: Submitter, job_id: str, key: Key = None) -> Response:
    """Go on after a pause."""
    return _command(request, caller, job_id, key, "Resume")


@router.post("/checkpoint", status_code=202, response_model=Command)
def write_checkpoint(request: Request, caller: Submitter, job_id: str, key: Key = None) -> Response:
    """Write one after the step under way."""
    return _command(request, caller, job_id, key, "Checkpoint")


@router.post("/retry", status_code=202, response_model=Job)
def retry_job(request: Request, caller: Submitter, job_id: str, key: Key = None) -> Response:
    """Go on from its last checkpoint with one more attempt."""
    return once(request, caller, key, None, work=lambda connection: _retry(connection, job_id, caller))


@router.post("/clone", status_code=201, response_model=JobDetail)
def clone_job(request: Request, caller: Submitter, job_id: str, key: Key = None) -> Response:
    """A new job of the same config and code, from the beginning."""

    def work(connection: Connection) -> Done:
        made = detail_of(_clone(connection, job_id, caller), num_attempts=0)
        location = str(request.url_for("show_job", job_id=made.job_id).path)
        return Done(message=made, status=201, headers={"Location": location, "ETag": tag(1, made)})

    return once(request, caller, key, None, work=work)


def _want(connection: Connection, job_id: str, caller: Caller, wanted: str) -> Done:
    row = existing.unfinished_job(connection, job_id)
    if row.wanted not in ("kill", wanted):  # who wants it killed does not want it to end gently afterwards
        now_s = time.time()
        jobs.want(connection, job_id, wanted, now_s=now_s)
        note(connection, row, f"{caller.name} asked: {wanted}", now_s=now_s)
    return _accepted(connection, job_id)


def _command(request: Request, caller: Caller, job_id: str, key: str | None, name: str) -> Response:
    def work(connection: Connection) -> Done:
        row = existing.unfinished_job(connection, job_id)
        made = ask(connection, row, {"command": name}, who=caller.name, now_s=time.time())
        return accepted_command(made)

    return once(request, caller, key, None, work=work)


def accepted_command(row: Row) -> Done:
    return Done(message=Command.model_validate(row), status=202)


def _accepted(connection: Connection, job_id: str) -> Done:
    return Done(message=job_of(existing.job(connection, job_id)), status=202)


def _retry(connection: Connection, job_id: str, caller: Caller) -> Done:
    row = existing.job(connection, job_id)
    if row.state not in OVER:
        raise ApiProblem(409, "job_is_not_over", f"job {row.name!r} is {row.state}: there is nothing to try again yet")
    if row.state == "succeeded":
        raise ApiProblem(409, "job_has_succeeded", f"job {row.name!r} has succeeded: clone it to run it again")
    now_s = time.time()
    former = attempts.of_job(connection, job_id)
    number = former[-1].number + 1 if former else 1
    num_held = sum(
        is_held(state=each.state, outcome=each.outcome, was_taken_away=each.was_taken_away) for each in former
    )
    _allow(connection, row, max_attempts=max(row.max_attempts, num_held + 1))
    jobs.want(connection, job_id, "run", now_s=now_s)
    jobs.set_state(connection, job_id, "queued", message=f"tried again by {caller.name}", now_s=now_s)
    attempts.add(connection, job_id, number, submission_id=f"{job_id}-{number}", now_s=now_s)
    note(connection, row, f"{caller.name} asked: retry, as attempt {number}", now_s=now_s)
    return _accepted(connection, job_id)


def _allow(connection: Connection, row: Row, *, max_attempts: int) -> None:
    if jobs.change(connection, row.job_id, version=row.version, max_attempts=max_attempts) is None:
        raise ApiProblem(409, "changed_meanwhile", "the job was changed at the same time: ask again")


def _clone(connection: Connection, job_id: str, caller: Caller) -> Row:
    row, now_s = existing.job(connection, job_id), time.time()
    kept: dict[str, Any] = {
        name: getattr(row, name)
        for name in ("name", "labels", "notes", "source", "config", "num_steps", "max_attempts", "bundle_sha256")
    }
    made = jobs.add(connection, owner=caller.name, now_s=now_s, **kept)
    # Checked again: another version of this program may have taken it in.
    pools.ensure(connection, made.job_id, check(row.config, source=row.name, runs_outside_code=False))
    note(connection, made, f"cloned from {job_id} by {caller.name}", now_s=now_s)
    return made
