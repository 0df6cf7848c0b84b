"""Pairs in a file of JSON lines, checked line by line, in pieces that a request can hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_cluster.errors import DataError

if TYPE_CHECKING:
    from rlhf_cluster.wire.labels import NewPair

PIECE_PAIRS = 1000
PIECE_CHARACTERS = 2_000_000


def pairs_of(path: Path) -> list[NewPair]:
    """Raises `DataError` with the first line that is no pair; empty lines are passed over."""
    from rlhf_cluster.wire.labels import NewPair

    pairs = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                pairs.append(_pair(NewPair, line, where=f"{path}, line {number}"))
    if not pairs:
        raise DataError(f"{path} holds no pair: a line is {{'prompt': ..., 'completion_a': ..., 'completion_b': ...}}")
    return pairs


def _pair(kind: type[NewPair], line: str, *, where: str) -> NewPair:
    from pydantic import ValidationError

    try:
        return kind.model_validate(json.loads(line))
    except ValidationError as error:
        told = "; ".join(_told(each) for each in error.errors())
        raise DataError(f"{where}: {told}") from error
    except ValueError as error:
        raise DataError(f"{where} is no JSON: {error}") from error


def _told(error: Any) -> str:
    column = ".".join(map(str, error["loc"]))
    said = error["msg"].removeprefix("Value error, ")
    return f"{column}: {said}" if column else said


def pieces(pairs: Sequence[NewPair]) -> Iterator[list[NewPair]]:
    """In their order."""
    piece: list[NewPair] = []
    room = PIECE_CHARACTERS
    for pair in pairs:
        size = len(pair.model_dump_json())
        if piece and (size > room or len(piece) == PIECE_PAIRS):
            yield piece
            piece, room = [], PIECE_CHARACTERS
        piece.append(pair)
        room -= size
    yield piece
