"""A sample file as rows: Parquet bytes that a driver wrote, opened with a look at how large they would become."""

from __future__ import annotations

import io
import re
from typing import Any

from rlhf_cluster.errors import DataError

NAME = re.compile(r"(step|eval)-[0-9]{6,12}\.parquet")
NEEDED = ("step", "prompt_id", "prompt", "completion", "reward", "length")
MAX_ROWS = 1_000_000
MAX_BYTES = 2**30
"""Unpacked: a small file can mean an endless one."""


def rows_of(content: bytes) -> list[dict[str, Any]]:
    """One a completion. Raises `DataError` for what is no sample file."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        num_bytes = sum(group.total_byte_size for group in groups)
        if file.metadata.num_rows > MAX_ROWS or num_bytes > MAX_BYTES:
            raise DataError(
                f"the file has {file.metadata.num_rows} rows and {num_bytes} bytes unpacked; it may have {MAX_ROWS} "
                f"and {MAX_BYTES}"
            )
        missing = [name for name in NEEDED if name not in file.schema_arrow.names]
        if missing:
            raise DataError(f"the file has no column {missing[0]!r}; a sample file has {', '.join(NEEDED)}")
        return file.read().to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the file is no Parquet that can be read: {str(error).splitlines()[0]}") from error
