"""A rollout group as bytes and back, every field exactly; and the digest of a batch.

    length of the header (uint32) | header (JSON, UTF-8) | padding to 8 bytes | the columns' raw bytes in a row

Columns keep their dtype and every bit, NaN included, and texts keep lone surrogates. Of `prompt.item` what JSON can
say comes back the same; a tuple comes back as a list, a numpy value as Python's, and anything else, such as a date, as
its `repr`. Rewards have read it by then, and training does not.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import xxhash

from rlhf_cluster.errors import DataError, StorageError
from rlhf_cluster.records import Invalid, Prompt, RolloutGroup

LENGTH = struct.Struct("<I")
ALIGNMENT = 8
COLUMNS = (
    "lengths",
    "token_ids",
    "logprobs",
    "versions",
    "rewards",
    "reference_logprobs",
    "loss_mask",
    "values",
    "returns",
    "advantages",
)


def encode(group: RolloutGroup) -> bytes:
    """Raises `DataError` when the prompt's item holds keys that JSON cannot have."""
    columns = _columns(group)
    header = {
        "columns": [(name, values.dtype.str, len(values)) for name, values in columns],
        "request_id": group.request_id,
        "worker_id": group.worker_id,
        "prompt_id": group.prompt.prompt_id,
        "prompt": group.prompt.text,
        "item": dict(group.prompt.item),
        "finish_reasons": group.finish_reasons,
        "texts": group.texts,
        "breakdown": list(group.breakdown),
        "invalid": [(failure.completion, failure.source, failure.kind, failure.message) for failure in group.invalid],
    }
    try:
        text = _JSON.encode(header)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the columns of prompt {group.prompt.prompt_id} cannot be kept: {error}. "
            "Use columns of text, numbers, lists and objects with text keys"
        ) from error
    return _framed(text.encode("utf-8", "surrogatepass"), columns)


def decode(content: bytes) -> RolloutGroup:
    """What `encode` was given; the arrays can be written. Raises `StorageError` for bytes that it did not make."""
    try:
        return _decoded(content)
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise StorageError(f"these {len(content)} bytes are no rollout group: {error}") from error


def batch_digest(groups: Iterable[RolloutGroup]) -> str:
    """xxh3-128 over what is trained on, 32 hex digits: every column, texts and failures, credit included.

    Who generated a group is not part of it: another worker that draws the same tokens makes the same batch.
    """
    digest = xxhash.xxh3_128()
    for group in groups:
        columns = _columns(group)
        invalid = [(failure.completion, failure.source, failure.kind) for failure in group.invalid]
        names = [(name, values.dtype.str, len(values)) for name, values in columns]
        what = [group.request_id, group.prompt.prompt_id, group.finish_reasons, group.texts, invalid, names]
        digest.update(_framed(_JSON.encode(what).encode("utf-8", "surrogatepass"), columns))
    return digest.hexdigest()


def _columns(group: RolloutGroup) -> list[tuple[str, np.ndarray]]:
    """The arrays that are there, by name; a reward's part of the breakdown under its place, as its name is free."""
    found = [("prompt", group.prompt.token_ids)]
    found += [(name, values) for name in COLUMNS if (values := getattr(group, name)) is not None]
    return found + [(str(place), values) for place, values in enumerate(group.breakdown.values())]


def _framed(header: bytes, columns: list[tuple[str, np.ndarray]]) -> bytes:
    padding = bytes(-(LENGTH.size + len(header)) % ALIGNMENT)
    return b"".join((LENGTH.pack(len(header)), header, padding, *(values.tobytes() for _, values in columns)))


def _decoded(content: bytes) -> RolloutGroup:
    (length,) = LENGTH.unpack_from(content)
    start = LENGTH.size + length
    header: dict[str, Any] = json.loads(content[LENGTH.size : start].decode("utf-8", "surrogatepass"))
    # Of a copy, as torch wants arrays that can be written.
    raw = bytearray(content[start + -start % ALIGNMENT :])
    arrays: dict[str, Any] = {}
    offset = 0
    for name, dtype, count in header["columns"]:
        arrays[name] = np.frombuffer(raw, dtype, count, offset)
        offset += arrays[name].nbytes
    columns: dict[str, Any] = {name: arrays.get(name) for name in COLUMNS}
    prompt = Prompt(
        prompt_id=header["prompt_id"], text=header["prompt"], token_ids=arrays["prompt"], item=header["item"]
    )
    return RolloutGroup(
        request_id=header["request_id"],
        prompt=prompt,
        worker_id=header["worker_id"],
        finish_reasons=tuple(header["finish_reasons"]),
        texts=tuple(header["texts"]),
        breakdown={name: arrays[str(place)] for place, name in enumerate(header["breakdown"])},
        invalid=tuple(
            Invalid(completion=completion, source=source, kind=kind, message=message)
            for completion, source, kind, message in header["invalid"]
        ),
        **columns,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return repr(value)


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain)
