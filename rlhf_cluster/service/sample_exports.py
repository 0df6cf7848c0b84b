"""Samples as files, made piece by piece while they are sent: JSON lines as the API shows them, and Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rlhf_cluster.wire.figures import Sample

Pieces = Iterator[Sequence[Sample]]
COLUMNS = {
    "sample_id": "int64",
    "kind": "string",
    "step": "int32",
    "request_id": "int64",
    "prompt_id": "string",
    "prompt": "string",
    "completion": "string",
    "reward": "float64",
    "num_tokens": "int32",
}


def json_lines(pieces: Pieces) -> Iterator[bytes]:
    for piece in pieces:
        yield "".join(f"{sample.model_dump_json()}\n" for sample in piece).encode()


def parquet(pieces: Pieces) -> Iterator[bytes]:
    """A row group a piece. The breakdown is a map by name, and the other columns of the job's own files are one text
    of JSON: jobs differ in both, and a file says its columns once for all rows."""
    import pyarrow
    import pyarrow.parquet

    types = {name: getattr(pyarrow, kind)() for name, kind in COLUMNS.items()}
    types |= {"breakdown": pyarrow.map_(pyarrow.string(), pyarrow.float64()), "body": pyarrow.string()}
    schema = pyarrow.schema(list(types.items()))
    sink = Taken()
    with pyarrow.parquet.ParquetWriter(sink, schema, compression="zstd") as writer:
        for piece in pieces:
            writer.write_table(pyarrow.Table.from_pylist([_row(sample) for sample in piece], schema=schema))
            yield sink.take()
    yield sink.take()


def _row(sample: Sample) -> dict[str, Any]:
    row = {name: getattr(sample, name) for name in COLUMNS}
    return {**row, "breakdown": list(sample.breakdown.items()), "body": json.dumps(sample.body, ensure_ascii=False)}


class Taken(io.RawIOBase):
    """A file that is only written to, and whose bytes are taken away to be sent."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._num_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._num_bytes += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._num_bytes

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
