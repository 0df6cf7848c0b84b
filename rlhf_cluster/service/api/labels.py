"""Judging: the next pair for whoever asks, shown blind, what they say of it, and taking it back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection, Row

from rlhf_cluster.flow.labelling import Choice, Completion, on_the_left
from rlhf_cluster.service import existing
from rlhf_cluster.service.api.label_sets import Name
from rlhf_cluster.service.auth import Labeler
from rlhf_cluster.service.idempotency import Done, Key, once
from rlhf_cluster.service.problems import ApiProblem
from rlhf_cluster.service.store import labels
from rlhf_cluster.wire.labels import Label, NewLabel, Shown, Side, Turn

router = APIRouter(prefix="/label-sets/{name}", tags=["labels"])


@router.post("/next")
def next_to_label(request: Request, caller: Labeler, name: Name) -> Turn:
    """The pair that the caller has before them; asked again, the same one. Its slot is kept for them for a while."""
    service, now_s = request.app.state.service, time.time()
    with service.db.writing() as connection:
        row = existing.label_set(connection, name)
        pair = labels.give(connection, row, caller.name, now_s=now_s, lease_s=service.settings.label_lease_s)
    with service.db.reading() as connection:  # counting takes longer, and nobody waits for it to write
        num_left, num_elsewhere = labels.num_open_to(connection, row, caller.name, now_s=now_s)
        return Turn(
            pair=None if pair is None else _shown(pair, left=_left(row, pair.number, caller.name)),
            num_mine=labels.num_of(connection, row.set_id, caller.name),
            num_left=num_left,
            num_elsewhere=num_elsewhere,
        )


def _left(label_set: Row, number: int, labeler: str) -> Completion:
    return on_the_left(seed=label_set.seed, number=number, labeler=labeler)


def _shown(pair: Row, *, left: Completion) -> Shown:
    a, b = pair.completion_a, pair.completion_b
    return Shown(
        pair_id=pair.pair_id,
        prompt=_text_of(pair.prompt),
        left=a if left == "a" else b,
        right=b if left == "a" else a,
        until_s=pair.until_s,
    )


def _text_of(prompt: str | Sequence[Mapping[str, str]]) -> str:
    """Of a chat with one message, that one; of a longer one each with who says it."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role']}:\n{message['content']}" for message in prompt)


@router.post("/labels", status_code=201, response_model=Label)
def add_label(request: Request, caller: Labeler, name: Name, body: NewLabel, key: Key = None) -> Response:
    """What the caller says of the pair before them. Said again, it is the same label."""
    now_s = time.time()

    def add(connection: Connection) -> Done:
        row = existing.label_set(connection, name)
        before = labels.of_pair(connection, row.set_id, caller.name, body.pair_id)
        if before is not None:
            return Done(message=_repeated(before, body), status=201)
        number = _before_them(connection, row, caller.name, body.pair_id, now_s=now_s)
        left = _left(row, number, caller.name)
        made = labels.add(
            connection,
            row.set_id,
            caller.name,
            number,
            choice=_meant(body.choice, left=left),
            shown_left=left,
            taken_s=body.taken_s,
            now_s=now_s,
        )
        return Done(message=_told(made, body.pair_id), status=201)

    return once(request, caller, key, body, work=add)


def _repeated(before: Row, body: NewLabel) -> Label:
    told = _told(before, body.pair_id)
    if told.choice != body.choice:
        detail = f"you have said {told.choice!r} of pair {body.pair_id!r}: undo that before you say {body.choice!r}"
        raise ApiProblem(409, "labelled_already", detail)
    return told


def _before_them(connection: Connection, label_set: Row, labeler: str, pair_id: str, *, now_s: float) -> int:
    """The number of the pair. Raises 409 where it is not the one that they were given, or was kept for too long."""
    pair = labels.leased(connection, label_set.set_id, labeler)
    if pair is None or pair.pair_id != pair_id:
        raise ApiProblem(
            409, "not_before_you", f"pair {pair_id!r} is not the one that you were given: ask for the next"
        )
    if not labels.is_free(connection, label_set, pair.number, labeler, now_s=now_s):
        detail = f"pair {pair_id!r} was kept for you for a while, and others have judged it since: ask for the next"
        raise ApiProblem(409, "taken_by_others", detail)
    return pair.number


def _meant(choice: Side, *, left: Completion) -> Choice:
    if choice in ("tie", "skip"):
        return choice
    return left if choice == "left" else ("b" if left == "a" else "a")


@router.post("/undo", response_model=Label)
def undo_label(request: Request, caller: Labeler, name: Name, key: Key = None) -> Response:
    """Take back what the caller said last in this set; its pair is before them again. Once more: the one before."""
    service, now_s = request.app.state.service, time.time()

    def undo(connection: Connection) -> Done:
        row = existing.label_set(connection, name)
        lease_s = service.settings.label_lease_s
        undone = labels.undo_last(connection, row.set_id, caller.name, now_s=now_s, lease_s=lease_s)
        if undone is None:
            raise ApiProblem(409, "nothing_to_undo", f"you have said nothing yet in {name!r}, or have undone it all")
        return Done(message=_told(undone, labels.pair_id_of(connection, row.set_id, undone.number)), status=200)

    return once(request, caller, key, None, work=undo)


def _told(row: Row, pair_id: str) -> Label:
    """As the person said it: which completion it was stays hidden."""
    said: Side = row.choice if row.choice in ("tie", "skip") else _side(row)
    return Label.model_validate({**row._mapping, "pair_id": pair_id, "choice": said})


def _side(row: Row) -> Literal["left", "right"]:
    return "left" if row.choice == row.shown_left else "right"
