"""Metrics: written once a step, the latest beside them, read whole, in part, and in stretches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sqlalchemy import func, select

from rlhf_cluster.service.store import metrics
from rlhf_cluster.service.store.database import Database
from rlhf_cluster.service.store.tables import metric_keys
from rlhf_cluster.service.store.tables import metrics as table


def _add(db: Database, job_id: str, step: int, **values: float | None) -> None:
    with db.writing() as connection:
        metrics.add(connection, job_id, step=step, time_s=float(step), values=values)


def _series(db: Database, job_id: str, *keys: str, **bounds):
    with db.reading() as connection:
        return metrics.series(connection, job_id, keys, **bounds)


def _num_rows(db: Database) -> int:
    with db.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_a_step_that_comes_twice_is_one_row_and_the_newer_counts(db: Database, job_id: str):
    _add(db, job_id, 1, reward=1.0, kl=0.5)
    _add(db, job_id, 1, reward=2.0)
    assert _num_rows(db) == 2
    reward, kl = _series(db, job_id, "reward", "kl")
    assert (reward.steps, reward.values) == ([1], [2.0])
    assert (kl.steps, kl.values) == ([1], [0.5])


def test_the_latest_are_those_of_the_greatest_step(db: Database, submit):
    job_id, other = submit(), submit()
    _add(db, other, 9, reward=9.0)
    with db.reading() as connection:
        assert metrics.latest(connection, job_id) == ({}, -1)
        assert metrics.keys(connection, job_id) == []
    _add(db, job_id, 1, reward=1.0, loss=3.0)
    _add(db, job_id, 3, reward=3.0)
    _add(db, job_id, 2, reward=2.0, kl=0.2)
    with db.reading() as connection:
        assert metrics.latest(connection, job_id) == ({"reward": 3.0, "loss": 3.0, "kl": 0.2}, 3)
        assert metrics.keys(connection, job_id) == ["kl", "loss", "reward"]
    _add(db, job_id, 3, reward=3.5)
    with db.reading() as connection:
        assert metrics.latest(connection, job_id)[0]["reward"] == 3.5


def test_a_value_that_is_not_finite_is_kept_as_none(db: Database, job_id: str):
    for step, value in enumerate((1, math.nan, math.inf, -math.inf, None, 10**400)):
        _add(db, job_id, step, loss=value)
    assert _series(db, job_id, "loss")[0].values == [1.0, None, None, None, None, None]
    with db.reading() as connection:
        assert metrics.latest(connection, job_id) == ({"loss": None}, 5)


def test_no_values_are_no_rows(db: Database, job_id: str):
    _add(db, job_id, 1)
    assert _num_rows(db) == 0


def test_series_come_in_the_order_of_the_keys_and_unknown_ones_are_empty(db: Database, submit):
    job_id, other = submit(), submit()
    _add(db, other, 1, elsewhere=1.0)
    for step in (2, 0, 1):
        _add(db, job_id, step, a=step, b=-step)
    found = _series(db, job_id, "b", "nothing", "elsewhere", "a", "b")
    assert [series.key for series in found] == ["b", "nothing", "elsewhere", "a", "b"]
    assert [series.steps for series in found] == [[0, 1, 2], [], [], [0, 1, 2], [0, 1, 2]]
    assert found[3].values == [0.0, 1.0, 2.0]
    assert found[3].lows is found[3].highs is None
    assert _series(db, job_id) == []


def test_only_what_came_after_a_step_is_given(db: Database, job_id: str):
    for step in range(6):
        _add(db, job_id, step, a=step)
    assert _series(db, job_id, "a", after_step=3)[0].steps == [4, 5]
    assert _series(db, job_id, "a", after_step=5)[0].steps == []


@pytest.mark.parametrize("max_points", [1, 2, 7, 50, 99])
def test_many_steps_become_stretches_with_mean_least_and_greatest(db: Database, job_id: str, max_points: int):
    rng = np.random.default_rng(0)
    steps = np.sort(rng.choice(np.arange(10, 400), size=100, replace=False))
    values = {int(step): float(rng.normal()) for step in steps}
    with db.writing() as connection:
        for step, value in values.items():
            metrics.add(
                connection,
                job_id,
                step=step,
                time_s=0.0,
                values={"a": value, "few": value} if step < 40 else {"a": value},
            )
    merged, few = _series(db, job_id, "a", "few", max_points=max_points, after_step=9)
    assert len(merged.steps) <= max_points
    assert merged.steps == sorted(set(merged.steps) & set(values))
    assert merged.steps[-1] == steps[-1]
    first = -1
    for last, mean, low, high in zip(merged.steps, merged.values, merged.lows, merged.highs, strict=True):
        stretch = [value for step, value in values.items() if first < step <= last]
        assert (low, high) == (min(stretch), max(stretch))
        assert mean == pytest.approx(np.mean(stretch))
        first = last
    assert len(few.steps) <= max_points


def test_as_many_steps_as_points_are_given_as_they_are(db: Database, job_id: str):
    for step in range(0, 50, 10):
        _add(db, job_id, step, a=step)
    series = _series(db, job_id, "a", max_points=5)[0]
    assert (series.steps, series.lows) == ([0, 10, 20, 30, 40], None)


def test_a_stretch_without_any_finite_value_is_none(db: Database, job_id: str):
    for step in range(8):
        _add(db, job_id, step, a=None if step < 4 else step)
    series = _series(db, job_id, "a", max_points=4)[0]
    assert series.steps == [1, 3, 5, 7]
    assert series.values == [None, None, 4.5, 6.5]
    assert series.lows == [None, None, 4.0, 6.0]


def test_keys_of_a_transaction_that_failed_are_not_remembered(db: Database, job_id: str):
    def fail() -> None:
        with db.writing() as connection:
            metrics.add(connection, job_id, step=1, time_s=1.0, values={"lost": 1.0})
            metrics.add(connection, job_id, step=2, time_s=1.0, values={"lost": 2.0})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    _add(db, job_id, 1, other=10.0)  # it may get the number that `lost` had
    _add(db, job_id, 1, lost=20.0)
    assert [series.values for series in _series(db, job_id, "other", "lost")] == [[10.0], [20.0]]
    with db.reading() as connection:
        assert set(connection.execute(select(metric_keys.c.key)).scalars()) == {"other", "lost"}


def test_keys_of_a_savepoint_that_failed_are_not_remembered(db: Database, job_id: str):
    with db.writing() as connection:
        savepoint = connection.begin_nested()
        metrics.add(connection, job_id, step=1, time_s=1.0, values={"lost": 1.0})
        savepoint.rollback()
        metrics.add(connection, job_id, step=1, time_s=1.0, values={"other": 10.0})
        metrics.add(connection, job_id, step=1, time_s=1.0, values={"lost": 20.0})
    assert [series.values for series in _series(db, job_id, "other", "lost")] == [[10.0], [20.0]]
