"""Sets of pairs that people judge: made of what is sent, listed, shown, measured, and exported as preference data."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection, Row

from rlhf_cluster.service import existing
from rlhf_cluster.service.auth import Reader, Submitter
from rlhf_cluster.service.idempotency import Done, Key, once
from rlhf_cluster.service.label_exports import columns_of
from rlhf_cluster.service.label_statistics import statistics_of
from rlhf_cluster.service.paging import Cursor, Limit, cursor_checked
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.shared import SharedRoute
from rlhf_cluster.service.store import label_sets, labels
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.wire.base import Page
from rlhf_cluster.wire.labels import AddPairs, CreateLabelSet, LabelSet, LabelStatistics, NewPair

router = APIRouter(prefix="/label-sets", tags=["labels"], route_class=SharedRoute)
Name = Annotated[str, Path(max_length=128, description="Of the set.")]
PIECE = 500


class JsonLines(StreamingResponse):
    media_type = "application/jsonl"


@router.post("", status_code=201, response_model=LabelSet)
def create_label_set(request: Request, caller: Submitter, body: CreateLabelSet, key: Key = None) -> Response:
    """Pairs for people to judge. Its name is taken for good, until the set is removed."""

    def make(connection: Connection) -> Done:
        fields = body.model_dump(include={"name", "seed", "overlap", "guidelines"})
        row = label_sets.add(connection, **fields, created_by=caller.name, now_s=time.time())
        if row is None:
            detail = f"there is a label set {body.name!r} already: choose another name, or add pairs to it"
            raise ApiProblem(409, "name_is_taken", detail)
        return _with_pairs(connection, row, body.pairs, status=201)

    return once(request, caller, key, body, work=make)


@router.post("/{name}/pairs", response_model=LabelSet)
def add_pairs(request: Request, caller: Submitter, name: Name, body: AddPairs, key: Key = None) -> Response:
    """More pairs, after those that are there."""

    def add(connection: Connection) -> Done:
        return _with_pairs(connection, existing.label_set(connection, name), body.pairs, status=200)

    return once(request, caller, key, body, work=add)


def _with_pairs(connection: Connection, row: Row, pairs: Sequence[NewPair], *, status: int) -> Done:
    try:
        label_sets.add_pairs(connection, row.set_id, pairs)
    except ValueError as error:
        raise ApiProblem(422, "pair_id_is_taken", str(error)) from error
    return Done(message=LabelSet.model_validate(label_sets.progress(connection, row.name)), status=status)


@router.get("")
def list_label_sets(request: Request, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[LabelSet]:
    """Newest first."""
    with request.app.state.service.db.reading() as connection, cursor_checked():
        rows, next_cursor = label_sets.page(connection, limit=limit, cursor=cursor)
    return Page(items=[LabelSet.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.get("/{name}")
def show_label_set(request: Request, caller: Reader, name: Name) -> LabelSet:
    with request.app.state.service.db.reading() as connection:
        existing.label_set(connection, name)
        return LabelSet.model_validate(label_sets.progress(connection, name))


@router.delete("/{name}", status_code=204)
def remove_label_set(request: Request, caller: Submitter, name: Name) -> None:
    """With all its labels."""
    with request.app.state.service.db.writing() as connection:
        label_sets.delete(connection, existing.label_set(connection, name).set_id)


@router.get("/{name}/statistics")
def show_label_statistics(request: Request, caller: Reader, name: Name) -> LabelStatistics:
    """Labels a person, agreement of every two, and how often what stood left was chosen."""
    with request.app.state.service.db.reading() as connection:
        return statistics_of(labels.of_set(connection, existing.label_set(connection, name).set_id))


@router.get("/{name}/export.jsonl", response_class=JsonLines)
def export_labels(
    request: Request,
    caller: Reader,
    name: Name,
    min_labels: Annotated[int, Query(ge=1, le=1000, description="Only pairs with at least so many labels.")] = 1,
) -> StreamingResponse:
    """One judged pair a line, in the order in which the pairs came."""
    db = request.app.state.service.db
    with db.reading() as connection:
        row = existing.label_set(connection, name)
    headers = {"Content-Disposition": f'attachment; filename="{row.name}.jsonl"', "Cache-Control": "no-store"}
    return JsonLines(_lines(db, row.set_id, min_labels=min_labels), headers=headers)


def _lines(db: Database, set_id: str, *, min_labels: int) -> Iterator[bytes]:
    """Each piece is read for itself: whoever reads slowly holds no transaction open."""
    first = 0
    while True:
        with db.reading() as connection:
            pairs = label_sets.pairs_from(connection, set_id, first, limit=PIECE, min_labels=min_labels)
            if not pairs:
                return
            rows = labels.of_pairs(connection, set_id, pairs[0].number, pairs[-1].number)
        by_pair: dict[int, list[Row]] = {pair.number: [] for pair in pairs}
        for row in rows:
            by_pair.get(row.number, []).append(row)
        judged = [columns_of(pair, by_pair[pair.number]) for pair in pairs]
        yield "".join(f"{json.dumps(columns, ensure_ascii=False)}\n" for columns in judged).encode()
        first = pairs[-1].number + 1
