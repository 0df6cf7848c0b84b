"""A ledger entry as compact JSON and back: `{"k": "Dispatched", "epoch": 1, ...}`, ASCII, lists for tuples."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rlhf_cluster.errors import StorageError
from rlhf_cluster.records import ledger
from rlhf_cluster.records.ledger import Entry

KINDS: dict[str, type[Entry]] = {
    name: kind for name, kind in vars(ledger).items() if isinstance(kind, type) and issubclass(kind, Entry)
}
_FIELDS = {kind: tuple(field.name for field in dataclasses.fields(kind)) for kind in KINDS.values()}


def encode(entry: Entry) -> bytes:
    kind = type(entry)
    fields = {"k": kind.__name__, **{name: getattr(entry, name) for name in _FIELDS[kind]}}
    return _JSON.encode(fields).encode("ascii")


def decode(content: bytes) -> Entry:
    """Raises `StorageError` for an entry that this version of the package does not know."""
    try:
        fields = json.loads(content)
        kind = KINDS[fields.pop("k")]
        return kind(**{name: _tuples(value) for name, value in fields.items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"the ledger holds an entry that this version cannot read: {content[:120]!r} ({error!r}); "
            f"known are {', '.join(KINDS)}. Use the version of the package that wrote it"
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


_JSON = json.JSONEncoder(separators=(",", ":"))
