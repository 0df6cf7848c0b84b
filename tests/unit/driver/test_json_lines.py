"""A growing file of rows: torn ends are cut off, damage before the end is told, odd values become plain ones."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_cluster.driver.json_lines import JsonLines
from rlhf_cluster.errors import StorageError


def test_a_line_torn_by_a_kill_is_cut_off_and_written_again_whole(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0}\n{"n": 1}\n{"n": ')
    file = JsonLines(path)
    assert [row["n"] for row in file.rows()] == [0, 1]
    file.append([{"n": 2}])
    file.close()
    assert path.read_text() == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'


def test_damage_before_the_end_is_named_with_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0}\n{"n": \n{"n": 2}\n')
    with pytest.raises(StorageError, match=r"rows\.jsonl line 2 is damaged"):
        list(JsonLines(path).rows())


def test_arrays_numbers_and_texts_that_json_has_no_word_for_are_made_plain(tmp_path):
    file = JsonLines(tmp_path / "rows.jsonl")
    file.append([{"a": np.arange(2), "b": np.float32(0.5), "c": float("nan"), "d": {1: (b"x", np.inf)}, "e": "\ud800"}])
    assert list(file.rows()) == [{"a": [0, 1], "b": 0.5, "c": None, "d": {"1": ["b'x'", None]}, "e": "?"}]
