"""Sample files as the driver writes them, and files that are none."""

from __future__ import annotations

import io

import pyarrow
import pyarrow.parquet
import pytest

from rlhf_cluster.errors import DataError
from rlhf_cluster.service import sample_files
from rlhf_cluster.service.sample_files import rows_of

ROW = {"step": 1, "prompt_id": "p", "prompt": "a", "completion": "b", "reward": 0.5, "length": 3}


def parquet(rows: list[dict]) -> bytes:
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), content)
    return content.getvalue()


def test_rows_come_back_as_they_were_written():
    assert rows_of(parquet([ROW, ROW])) == [ROW, ROW]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", parquet([ROW])[:-20]])
def test_what_is_no_parquet_is_told_so(content):
    with pytest.raises(DataError, match="no Parquet"):
        rows_of(content)


def test_a_table_of_something_else_is_refused_by_the_column_it_lacks():
    with pytest.raises(DataError, match="no column 'prompt_id'"):
        rows_of(parquet([{"step": 1}]))


def test_a_small_file_that_means_an_endless_one_is_not_unpacked():
    rows = sample_files.MAX_ROWS + 1
    column = pyarrow.array([0]).take(pyarrow.array([0] * rows))
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(dict.fromkeys(ROW, column)), content)
    with pytest.raises(DataError, match="1000001 rows"):
        rows_of(content.getvalue())
