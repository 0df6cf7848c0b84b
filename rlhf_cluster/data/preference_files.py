"""Files of preferences: JSON lines and Parquet, told apart by their suffix; reading gives exactly what was written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_cluster.data.preferences import COLUMNS, Preference, preference_of
from rlhf_cluster.data.settings import JsonlSource, ParquetSource
from rlhf_cluster.data.sources import columns_in
from rlhf_cluster.errors import DataError

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".jsonl", ".parquet")
PLAIN = (str, bool, int, float)
REST = "other_columns"
"""Column of a Parquet file, a JSON text: what `item` holds that is neither text nor number."""


def write_preferences(path: Path, preferences: Sequence[Preference]) -> None:
    """Replaces what is there. A Parquet file holds `provenance` as JSON text, since its keys differ from row to row.

    Raises `DataError` for another suffix, or for values that the format cannot hold.
    """
    rows = [preference.columns() for preference in preferences]
    try:
        if _suffix(path) == ".jsonl":
            text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
            path.write_text(text, encoding="utf-8")
        else:
            _write_parquet(path, rows)
    except (TypeError, ValueError) as error:  # pyarrow's errors among them
        raise DataError(f"{path} cannot hold these preferences: {error}") from error


def read_preferences(path: Path) -> list[Preference]:
    """Raises `DataError` naming the file and the row at fault."""
    is_jsonl = _suffix(path) == ".jsonl"
    _, rows = columns_in(JsonlSource(path=path) if is_jsonl else ParquetSource(path=path))
    return [
        preference_of(row if is_jsonl else _from_parquet(row), where=f"{path} row {number}")
        for number, row in enumerate(rows)
    ]


def _suffix(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path} ends in {path.suffix!r}; preferences are written as {' or '.join(SUFFIXES)}")
    return path.suffix


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow.parquet

    flat = [_for_parquet(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    columns = {name: pyarrow.array([row.get(name) for row in flat], type=_type(name)) for name in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _type(name: str) -> pyarrow.DataType | None:
    """None is for pyarrow to find out."""
    import pyarrow

    types = {"tie": pyarrow.bool_(), "time_s": pyarrow.float64(), "prompt": None}
    return types.get(name, pyarrow.string()) if name in COLUMNS else None


def _for_parquet(row: Mapping[str, Any]) -> dict[str, Any]:
    others = {name: value for name, value in row.items() if name not in COLUMNS and not isinstance(value, PLAIN)}
    kept = {name: value for name, value in row.items() if name not in others}
    return {
        **kept,
        "provenance": json.dumps(row["provenance"], ensure_ascii=False, allow_nan=False),
        REST: json.dumps(others, ensure_ascii=False, allow_nan=False) if others else None,
    }


def _from_parquet(row: Mapping[str, Any]) -> dict[str, Any]:
    others = row.get(REST)
    provenance = row.get("provenance")
    return {
        **{name: value for name, value in row.items() if name != REST},
        "provenance": json.loads(provenance) if isinstance(provenance, str) else provenance,
        **(json.loads(others) if isinstance(others, str) else {}),
    }
