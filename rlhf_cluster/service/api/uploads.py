"""Bundles of a job's own code, by the SHA-256 of their content. What is uploaded is never run or unpacked here."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path as FilePath
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.service import bundles
from rlhf_cluster.service.auth import Submitter
from rlhf_cluster.service.problems import ApiProblem, not_found
from rlhf_cluster.service.store import uploads
from rlhf_cluster.wire.access import Upload

router = APIRouter(prefix="/uploads", tags=["uploads"])
Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
UNPACKED = 4
"""Times `max_upload_bytes` that a bundle may be unpacked."""
PIECE_BYTES = 2**20
ZIP = {"application/zip": {"schema": {"type": "string", "format": "binary"}}}
ZIP_BODY = {"requestBody": {"required": True, "content": ZIP}}


def path_of(data_dir: FilePath, sha256: str) -> FilePath:
    return data_dir / "uploads" / f"{sha256}.zip"


@router.head("/{sha256}", response_class=Response)
def has_upload(request: Request, caller: Submitter, sha256: Sha256) -> Response:
    """Whether it is here already and need not be sent."""
    with request.app.state.service.db.reading() as connection:
        row = uploads.get(connection, sha256)
    if row is None:
        raise not_found("upload", sha256)
    return Response(headers={"Upload-Bytes": str(row.num_bytes)})


@router.put("/{sha256}", status_code=201, openapi_extra=ZIP_BODY)
async def put_upload(request: Request, caller: Submitter, sha256: Sha256) -> Upload:
    """A zip file with files and directories only, none of which leads out of it. The same again changes nothing."""
    service = request.app.state.service
    try:
        descriptor, name = await run_in_threadpool(_incoming, service.settings.data_dir)
    except OSError as error:
        raise _cannot_store(error) from error
    try:
        num_bytes = await _receive(request, descriptor, sha256, max_bytes=service.settings.max_upload_bytes)
        return await run_in_threadpool(_keep, request, FilePath(name), sha256, num_bytes, caller.name)
    except OSError as error:
        raise _cannot_store(error) from error
    finally:
        FilePath(name).unlink(missing_ok=True)


def _incoming(data_dir: FilePath) -> tuple[int, str]:
    directory = path_of(data_dir, "").parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return tempfile.mkstemp(dir=directory, prefix=".incoming-")  # for its owner alone


def _cannot_store(error: OSError) -> ApiProblem:
    return ApiProblem(507, "cannot_store", f"the service cannot store the bundle: {error.strerror}")


async def _receive(request: Request, descriptor: int, sha256: str, *, max_bytes: int) -> int:
    """Into the file, never more than `max_bytes` of it, whatever the request says of its length."""
    digest, num_bytes, waiting = hashlib.sha256(), 0, bytearray()
    with os.fdopen(descriptor, "wb") as file:
        async for piece in request.stream():
            num_bytes += len(piece)
            if num_bytes > max_bytes:
                raise ApiProblem(413, "too_large", f"a bundle may have {max_bytes} bytes; this one has more")
            digest.update(piece)
            waiting += piece
            if len(waiting) >= PIECE_BYTES:
                await run_in_threadpool(file.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(file.write, bytes(waiting))
    if digest.hexdigest() != sha256:
        detail = f"what arrived has the SHA-256 {digest.hexdigest()}, not {sha256}: it was cut off, or is another file"
        raise ApiProblem(422, "wrong_sha256", detail)
    return num_bytes


def _keep(request: Request, incoming: FilePath, sha256: str, num_bytes: int, who: str) -> Upload:
    service = request.app.state.service
    try:
        bundles.check(incoming, max_bytes=UNPACKED * service.settings.max_upload_bytes)
    except ConfigError as error:
        raise ApiProblem(422, "unsafe_bundle", str(error)) from error
    os.replace(incoming, path_of(service.settings.data_dir, sha256))
    with service.db.writing() as connection:
        row = uploads.add(connection, sha256, num_bytes=num_bytes, created_by=who, now_s=time.time())
    return Upload.model_validate(row)
