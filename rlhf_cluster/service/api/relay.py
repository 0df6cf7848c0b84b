"""For the relay of an attempt, with the attempt's own token: it registers, tells what is new, and asks for commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse
from sqlalchemy import Row
from starlette.concurrency import run_in_threadpool

from rlhf_cluster.errors import DataError
from rlhf_cluster.flow.attempts import KILL
from rlhf_cluster.service import ingest as taking
from rlhf_cluster.service.api.uploads import path_of
from rlhf_cluster.service.auth import Relay
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.sample_files import NAME, rows_of
from rlhf_cluster.service.store import attempts, commands, logs, pools, samples
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.wire.relay import Answered, Commands, Delivered, Ended, Ingest, Ingested, Register, Registered

router = APIRouter(prefix="/relay", tags=["relay"])

LOOK_EVERY_S = 0.5
MAX_HELD = 500
PARQUET = {"application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}}}
PARQUET_BODY = {"requestBody": {"required": True, "content": PARQUET}}


@router.post("/register")
def register(request: Request, attempt: Relay, body: Register) -> Registered:
    """Its lease begins, and it is told where the service is, to go on from there. May be asked again."""
    service = request.app.state.service
    now_s = time.time()
    with service.db.writing() as connection:
        job = taking.fence(connection, attempt)
        if attempt.process_id != body.process_id or attempt.host != body.host:
            taking.take_start(connection, attempt, host=body.host, process_id=body.process_id, now_s=now_s)
        attempts.register(
            connection,
            job.job_id,
            attempt.number,
            host=body.host,
            process_id=body.process_id,
            lease_until_s=now_s + service.settings.lease_s,
        )
        return Registered(
            job_id=job.job_id,
            attempt=attempt.number,
            job_dir=str(service.settings.job_dirs.absolute() / job.job_id),
            config=taking.with_pools(job.config, pools.of_job(connection, job.job_id)),
            bundle_sha256=job.bundle_sha256,
            num_entries=job.num_entries,
            sample_files=samples.files(connection, job.job_id),
            log_offsets=logs.offsets(connection, job.job_id),
            lease_s=service.settings.lease_s,
        )


@router.post("/ingest")
def ingest(request: Request, attempt: Relay, body: Ingest) -> Ingested:
    """What is new. Answers how many entries of the journal are in; the relay goes on with the next one."""
    service = request.app.state.service
    with service.db.writing() as connection:
        num_entries = taking.take_in(connection, attempt, body, now_s=time.time(), lease_s=service.settings.lease_s)
    service.exposition.ingested("entry", len(body.entries))
    service.exposition.ingested("log line", len(body.lines))
    return Ingested(num_entries=num_entries)


@router.get("/bundle", response_class=FileResponse)
def bundle(request: Request, attempt: Relay) -> FileResponse:
    """The code that was uploaded with the job."""
    service = request.app.state.service
    with service.db.reading() as connection:
        sha256 = taking.fence(connection, attempt).bundle_sha256
    path = path_of(service.settings.data_dir, sha256 or "")
    if not sha256 or not path.is_file():
        raise ApiProblem(
            404, "not_found", f"there is no code of job {attempt.job_id}: none was uploaded with it, or it was removed"
        )
    return FileResponse(path, media_type="application/zip")


async def _content(request: Request) -> bytes:
    """The body, no larger than an upload may be."""
    limit = request.app.state.service.settings.max_upload_bytes
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > limit:
            raise ApiProblem(413, "too_large", f"a sample file may have {limit} bytes; this one has more")
    return bytes(content)


@router.put("/samples/{name}", status_code=204, openapi_extra=PARQUET_BODY)
def put_samples(request: Request, attempt: Relay, name: str, content: Annotated[bytes, Depends(_content)]) -> None:
    """One file of samples, whole. One that is in already changes nothing."""
    service = request.app.state.service
    if not NAME.fullmatch(name):
        raise ApiProblem(422, "invalid_request", f"{name!r} is no sample file: it is step-000012.parquet or eval-...")
    with service.db.reading() as connection:
        taking.fence(connection, attempt)
        if name in samples.files(connection, attempt.job_id):
            return
    try:
        rows = rows_of(content)
    except DataError as error:
        raise ApiProblem(422, "invalid_request", f"{name}: {error}") from error
    with service.db.writing() as connection:
        taking.fence(connection, attempt)
        samples.add_file(connection, attempt.job_id, name, rows, keep=service.settings.samples_per_step)
    service.exposition.ingested("sample", len(rows))


@router.get("/commands")
async def wait_for_commands(
    request: Request,
    attempt: Relay,
    wait: Annotated[float, Query(ge=0, le=60)] = 25.0,
    held: Annotated[list[str] | None, Query(max_length=MAX_HELD)] = None,
) -> Commands:
    """Those without an answer that are not `held`, as soon as there is one; none after `wait` seconds, or when the
    service ends."""
    service = request.app.state.service
    deadline_s = time.monotonic() + wait
    while True:
        found = await run_in_threadpool(_deliver, service.db, attempt, set(held or ()))
        left_s = deadline_s - time.monotonic()
        is_any = found.commands or found.kill
        if is_any or left_s <= 0 or service.hub.is_closed or await request.is_disconnected():
            return found
        await asyncio.sleep(min(left_s, LOOK_EVERY_S))


def _deliver(db: Database, attempt: Row, held: set[str]) -> Commands:
    with db.reading() as connection:
        if taking.fence(connection, attempt).wanted == KILL:
            return Commands(commands=[], kill=True)
        if not _new(commands.of_job(connection, attempt.job_id, limit=200)[0], held):
            return Commands(commands=[])
    with db.writing() as connection:
        taking.fence(connection, attempt)
        rows = _new(commands.waiting(connection, attempt.job_id, now_s=time.time()), held)[: MAX_HELD - len(held)]
        commands.deliver(connection, [row.command_id for row in rows])
        return Commands(commands=[Delivered.model_validate(row) for row in rows])


def _new(rows: Sequence[Row], held: set[str]) -> list[Row]:
    return [row for row in rows if row.state in commands.OPEN and row.command_id not in held]


@router.post("/commands/{command_id}/answer", status_code=204)
def answer(request: Request, attempt: Relay, command_id: str, body: Answered) -> None:
    """What the driver said to a command. The first answer counts."""
    with request.app.state.service.db.writing() as connection:
        taking.take_answer(connection, attempt, command_id, body, now_s=time.time())


@router.post("/ended", status_code=204)
def ended(request: Request, attempt: Relay, body: Ended) -> None:
    """The last word of a relay: how its driver ended."""
    with request.app.state.service.db.writing() as connection:
        taking.take_end(connection, attempt, body, now_s=time.time())
