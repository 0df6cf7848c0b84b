"""Jobs: submitted, checked without being submitted, listed, shown, changed and removed."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection

from rlhf_cluster.service import existing
from rlhf_cluster.service.asking import note
from rlhf_cluster.service.auth import Caller, Reader, Submitter
from rlhf_cluster.service.etags import NOT_MODIFIED, IfMatch, IfNoneMatch, check_match, fresh, tag
from rlhf_cluster.service.idempotency import Done, Key, once
from rlhf_cluster.service.paging import Cursor, Limit, cursor_checked
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import attempts, jobs, pools, uploads
from rlhf_cluster.service.submission import Resolved, plan_lines, resolve
from rlhf_cluster.service.views import detail_of, job_of
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.jobs import OVER, ChangeJob, Checked, Job, JobDetail, JobState, Submit

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=SharedRoute)


@router.post("", status_code=201, response_model=JobDetail)
def submit_job(request: Request, caller: Submitter, body: Submit, key: Key = None) -> Response:
    """Have a job run. Its code runs on the cluster with the rights of the cluster's nodes."""
    resolved = resolve(body)
    return once(
        request, caller, key, body, work=lambda connection: add_job(request, connection, caller, body, resolved)
    )


def add_job(request: Request, connection: Connection, caller: Caller, body: Submit, resolved: Resolved) -> Done:
    if body.bundle_sha256 is not None and uploads.get(connection, body.bundle_sha256) is None:
        detail = f"bundle_sha256 = {body.bundle_sha256} is not here: PUT it to /uploads/{body.bundle_sha256} first"
        raise ApiProblem(422, "unknown_upload", detail)
    now_s = time.time()
    row = jobs.add(
        connection,
        name=body.name or resolved.job.name,
        owner=caller.name,
        labels=body.labels,
        notes=body.notes,
        source=resolved.source,
        config=resolved.config,
        num_steps=resolved.job.train.num_steps,
        max_attempts=body.max_attempts,
        bundle_sha256=body.bundle_sha256,
        now_s=now_s,
    )
    pools.ensure(connection, row.job_id, resolved.job)
    note(connection, row, f"submitted by {caller.name}", now_s=now_s)
    made = detail_of(row, num_attempts=0)
    location = str(request.url_for("show_job", job_id=row.job_id).path)
    return Done(message=made, status=201, headers={"Location": location, "ETag": tag(row.version, made)})


@router.post("/validate")
def validate_job(caller: Submitter, body: Submit) -> Checked:
    """The whole config and the plan of a job that is not submitted."""
    resolved = resolve(body)
    return Checked(config=resolved.config, changed=resolved.changed, lines=plan_lines(resolved.job))


@router.get("")
def list_jobs(
    request: Request,
    caller: Reader,
    state: Annotated[list[JobState] | None, Query(description="One of these.")] = None,
    name: Annotated[str | None, Query(max_length=128)] = None,
    owner: Annotated[str | None, Query(max_length=128)] = None,
    label: Annotated[str | None, Query(max_length=400, description="`key=value`, or a key with any value.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Part of an id, a name, notes or the message.")] = None,
    ref: Annotated[
        str | None,
        Query(max_length=128, description="An id, the beginning of one, a name (its newest job), or `@last`."),
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Job]:
    """Newest first. With `ref`, which other filters do not narrow, the one job that people mean by it, or 404."""
    with request.app.state.service.db.reading() as connection:
        if ref is not None:
            try:
                return Page(items=[job_of(jobs.find(connection, ref))])
            except LookupError as error:
                raise ApiProblem(404, "not_found", str(error.args[0])) from error
        with cursor_checked():
            rows, next_cursor = jobs.page(
                connection, limit=limit, cursor=cursor, states=state, name=name, owner=owner, label=label, q=q
            )
    return Page(items=[job_of(row) for row in rows], next_cursor=next_cursor)


@router.get("/{job_id}", response_model=JobDetail, responses=NOT_MODIFIED)
def show_job(
    request: Request, response: Response, caller: Reader, job_id: str, if_none_match: IfNoneMatch = None
) -> JobDetail | Response:
    with request.app.state.service.db.reading() as connection:
        row = existing.job(connection, job_id)
        detail = detail_of(row, num_attempts=len(attempts.of_job(connection, job_id)))
    return fresh(detail, row.version, has=if_none_match, response=response)


@router.patch("/{job_id}", response_model=JobDetail)
def change_job(
    request: Request, response: Response, caller: Submitter, job_id: str, body: ChangeJob, if_match: IfMatch = None
) -> JobDetail | Response:
    """Its name, labels or notes; what is left out stays."""
    with request.app.state.service.db.writing() as connection:
        row = existing.job(connection, job_id)
        check_match(if_match, row.version, what="job")
        fields = body.model_dump(exclude_none=True)
        row = jobs.change(connection, job_id, version=row.version, **fields) if fields else row
        if row is None:
            raise ApiProblem(412, "changed_meanwhile", "the job was changed at the same time: read it again")
        detail = detail_of(row, num_attempts=len(attempts.of_job(connection, job_id)))
    return fresh(detail, row.version, has=None, response=response)


@router.delete("/{job_id}", status_code=204)
def remove_job(request: Request, caller: Submitter, job_id: str, if_match: IfMatch = None) -> None:
    """A job that is over, with its figures, samples and logs. Its directory, with checkpoints, stays where it is."""
    with request.app.state.service.db.writing() as connection:
        row = existing.job(connection, job_id)
        check_match(if_match, row.version, what="job")
        if row.state not in OVER:
            raise ApiProblem(409, "job_is_not_over", f"job {row.name!r} is {row.state}: cancel it first")
        jobs.delete(connection, job_id)
