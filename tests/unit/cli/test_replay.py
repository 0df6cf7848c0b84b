"""`rlhf replay` shows every digit, and its exit code says whether all was equal."""

from __future__ import annotations

import json

import pytest

from rlhf_cluster.cli.replay import page
from rlhf_cluster.driver.replay import Replayed


@pytest.mark.parametrize(
    ("logged", "equal", "word"),
    [(0.1, True, "yes"), (0.1 + 2**-56, False, "no"), (None, None, "-"), (0.1 + 1, False, "no")],
)
def test_a_row_says_whether_the_loss_is_equal_to_the_bit(logged, equal, word):
    step = Replayed(step=3, num_tokens=120, logged_loss=logged, loss=0.1)
    assert step.is_equal is equal
    row = page([step]).splitlines()[1].split()
    assert (row[0], row[1], row[3], row[4]) == ("3", "120", "0.1", word)


def test_minus_zero_is_not_zero():
    assert Replayed(step=0, num_tokens=1, logged_loss=-0.0, loss=0.0).is_equal is False


def test_where_no_job_is_nothing_is_found(rlhf, tmp_path):
    code, _, err = rlhf("replay", str(tmp_path), "--step", "0", "-o", "json")
    assert code == 3
    assert "no job directory" in json.loads(err)["error"]["message"]


def test_the_step_must_be_named_and_counts_from_zero(rlhf, tmp_path):
    (tmp_path / "job.json").write_text("{}")
    assert rlhf("replay", str(tmp_path))[0] == 2
    assert rlhf("replay", str(tmp_path), "--step", "-1")[0] == 2
