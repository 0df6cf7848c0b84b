"""Completions with their rewards: by step or by reward, searched, one by one, and all of them as a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse

from rlhf_cluster.service import existing
from rlhf_cluster.service.api.metrics import MAX_STEP
from rlhf_cluster.service.auth import Reader
from rlhf_cluster.service.paging import Cursor, Limit, cursor_checked
from rlhf_cluster.service.problems import not_found
from rlhf_cluster.service.sample_exports import json_lines, parquet
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import samples
from rlhf_cluster.service.store.cursors import MAX_INTEGER
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.figures import Sample, SampleStep

router = APIRouter(prefix="/jobs/{job_id}", tags=["samples"], route_class=SharedRoute)

PIECE = 200


class JsonLines(StreamingResponse):
    media_type = "application/jsonl"


class Parquet(StreamingResponse):
    media_type = "application/vnd.apache.parquet"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The samples that are meant; with nothing given, all."""

    step: int | None
    kind: str | None
    min_reward: float | None
    max_reward: float | None
    q: str | None
    request_id: int | None


def _chosen(
    step: Annotated[int | None, Query(ge=0, le=MAX_STEP)] = None,
    kind: Annotated[Literal["step", "eval"] | None, Query(description="Of training or of evaluations.")] = None,
    min_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    max_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    q: Annotated[str | None, Query(max_length=200, description="Part of the prompt or the completion.")] = None,
    request_id: Annotated[
        int | None, Query(ge=-MAX_INTEGER, le=MAX_INTEGER, description="The completions of one prompt.")
    ] = None,
) -> Chosen:
    return Chosen(step, kind, min_reward, max_reward, q, request_id)


Filter = Annotated[Chosen, Depends(_chosen)]


@router.get("/samples")
def list_samples(
    request: Request,
    caller: Reader,
    job_id: str,
    chosen: Filter,
    sort: samples.Sort = "newest",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Sample]:
    """Newest first, or from the least (`reward`) or the greatest reward (`-reward`), those without one last."""
    with request.app.state.service.db.reading() as connection, cursor_checked():
        existing.job(connection, job_id)
        rows, next_cursor = samples.page(connection, job_id, limit=limit, cursor=cursor, sort=sort, **asdict(chosen))
    return Page(items=[Sample.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get("/samples/steps")
def list_steps(request: Request, caller: Reader, job_id: str) -> Page[SampleStep]:
    """The steps and evaluations that have any, newest first."""
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        return Page(items=[SampleStep.model_validate(row) for row in samples.steps(connection, job_id)])


@router.get("/samples/{sample_id}")
def show_sample(
    request: Request, caller: Reader, job_id: str, sample_id: Annotated[int, Path(ge=0, le=MAX_INTEGER)]
) -> Sample:
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
        row = samples.get(connection, job_id, sample_id)
    if row is None:
        raise not_found("sample", str(sample_id))
    return Sample.model_validate(row)


@router.get("/samples.jsonl", response_class=JsonLines)
def export_json_lines(request: Request, caller: Reader, job_id: str, chosen: Filter) -> StreamingResponse:
    """One sample a line, newest first."""
    content = json_lines(_pieces(request.app.state.service.db, job_id, chosen))
    return JsonLines(content, headers=_as_file(request, job_id, "jsonl"))


@router.get("/samples.parquet", response_class=Parquet)
def export_parquet(request: Request, caller: Reader, job_id: str, chosen: Filter) -> StreamingResponse:
    """One row a sample, newest first; `breakdown` is a map, `body` a JSON text."""
    content = parquet(_pieces(request.app.state.service.db, job_id, chosen))
    return Parquet(content, headers=_as_file(request, job_id, "parquet"))


def _as_file(request: Request, job_id: str, ending: str) -> dict[str, str]:
    """Only an id that a job has gets into a header."""
    with request.app.state.service.db.reading() as connection:
        existing.job(connection, job_id)
    return {"Content-Disposition": f'attachment; filename="{job_id}.{ending}"', "Cache-Control": "no-store"}


def _pieces(db: Database, job_id: str, chosen: Chosen) -> Iterator[Sequence[Sample]]:
    """Each read for itself: whoever reads slowly holds no transaction open, and no more than one piece in memory."""
    cursor: str | None = None
    while True:
        with db.reading() as connection:
            rows, cursor = samples.page(connection, job_id, limit=PIECE, cursor=cursor, **asdict(chosen))
        yield [Sample.model_validate(row) for row in rows]
        if cursor is None:
            return
