"""Samples: each file taken in once, whole groups of a large one, listed by step and by reward."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlhf_cluster.service.store import samples
from rlhf_cluster.service.store.database import Database


def _row(step: int, prompt: str, reward: float | None, **more: Any) -> dict[str, Any]:
    row = {
        "step": step,
        "prompt_id": prompt,
        "prompt": f"say {prompt}",
        "completion": f"{prompt}!",
        "reward": reward,
        "reward/length": 0.25,
        "reward/style": None,
        "advantage_mean": math.nan,
        "length": 4,
        "finish_reason": "stop",
        "worker_id": "rollout-0",
    }
    return {**row, **more}


def _file(step: int, rewards: list[list[float | None]]) -> list[dict[str, Any]]:
    """One group for each list of rewards."""
    return [_row(step, f"p{number}", reward) for number, group in enumerate(rewards) for reward in group]


def _take(db: Database, job_id: str, name: str, rows: list[dict[str, Any]], *, keep: int = 100) -> bool:
    with db.writing() as connection:
        return samples.add_file(connection, job_id, name, rows, keep=keep)


def _page(db: Database, job_id: str, **filters: Any):
    with db.reading() as connection:
        return samples.page(connection, job_id, **{"limit": 100, **filters})[0]


def test_a_file_is_taken_in_once(db: Database, submit):
    job_id, other = submit(), submit()
    rows = _file(1, [[0.5, 1.0]])
    assert _take(db, job_id, "step-000001.parquet", rows)
    assert not _take(db, job_id, "step-000001.parquet", rows)
    assert _take(db, job_id, "eval-000001.parquet", rows)
    assert _take(db, other, "step-000001.parquet", rows)
    assert _take(db, job_id, "step-000002.parquet", [])
    with db.reading() as connection:
        assert samples.files(connection, job_id) == [
            "eval-000001.parquet",
            "step-000001.parquet",
            "step-000002.parquet",
        ]
        assert [tuple(row) for row in samples.steps(connection, job_id)] == [("eval", 1, 2), ("step", 1, 2)]
    assert len(_page(db, job_id)) == 4


def test_a_row_keeps_all_its_columns(db: Database, job_id: str):
    _take(db, job_id, "step-000003.parquet", [_row(3, "p\0", 0.5, request_id=77, invalid="")])
    sample = _page(db, job_id)[0]
    assert (sample.kind, sample.step, sample.request_id, sample.reward, sample.num_tokens) == ("step", 3, 77, 0.5, 4)
    assert (sample.prompt_id, sample.prompt, sample.completion) == ("p\ufffd", "say p\ufffd", "p\ufffd!")
    assert sample.breakdown == {"length": 0.25, "style": None}
    assert sample.body == {"advantage_mean": None, "finish_reason": "stop", "worker_id": "rollout-0", "invalid": ""}


def test_siblings_have_a_number_in_common_that_no_other_group_has(db: Database, job_id: str):
    _take(db, job_id, "step-000001.parquet", _file(1, [[0.0, 1.0], [2.0, 3.0]]))
    _take(db, job_id, "step-000002.parquet", _file(2, [[4.0, 5.0]]))
    groups: dict[int, set[float]] = {}
    for sample in _page(db, job_id):
        groups.setdefault(sample.request_id, set()).add(sample.reward)
    assert sorted(map(sorted, groups.values())) == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert {row.reward for row in _page(db, job_id, request_id=next(iter(groups)))} in groups.values()


@pytest.mark.parametrize("keep", [2, 4, 6, 10, 11, 19])
def test_of_a_large_file_whole_groups_are_kept_with_the_best_and_the_worst(db: Database, job_id: str, keep: int):
    rewards: list[list[float | None]] = [[float(number), None] for number in (3, 9, 4, 0, 5, 6, 1, 2, 7, 8)]
    _take(db, job_id, "step-000001.parquet", _file(1, rewards), keep=keep)
    kept = _page(db, job_id)
    assert len(kept) == keep // 2 * 2
    assert len({row.prompt_id for row in kept}) == keep // 2
    values = [row.reward for row in kept if row.reward is not None]
    assert max(values) == 9.0
    assert keep < 4 or min(values) == 0.0


def test_a_group_larger_than_what_is_kept_is_cut(db: Database, job_id: str):
    _take(db, job_id, "step-000001.parquet", _file(1, [[1.0] * 8, [2.0] * 8]), keep=3)
    assert [row.reward for row in _page(db, job_id)] == [2.0] * 3


def test_samples_are_filtered_by_everything_at_once(db: Database, job_id: str):
    _take(db, job_id, "step-000001.parquet", _file(1, [[0.0, 1.0], [2.0, None]]))
    _take(db, job_id, "eval-000002.parquet", _file(2, [[3.0]]))

    def rewards(**filters: Any) -> list[float | None]:
        return [row.reward for row in _page(db, job_id, **filters)]

    assert rewards() == [3.0, None, 2.0, 1.0, 0.0]
    assert rewards(step=2) == rewards(kind="eval") == [3.0]
    assert rewards(min_reward=1.0) == [3.0, 2.0, 1.0]
    assert rewards(min_reward=1.0, max_reward=2.0) == [2.0, 1.0]
    assert rewards(q="SAY P1") == rewards(q="1!") == [None, 2.0]
    assert rewards(q="%") == []
    assert rewards(q="p0", kind="step", step=1, min_reward=0.5) == [1.0]


def test_by_reward_those_without_one_come_last(db: Database, job_id: str):
    _take(db, job_id, "step-000001.parquet", _file(1, [[None, 2.0, 0.5, 2.0, math.nan]]))
    ids = [row.sample_id for row in _page(db, job_id)][::-1]
    order = {"reward": [2, 1, 3, 0, 4], "-reward": [1, 3, 2, 0, 4]}
    for sort, expected in order.items():
        assert [ids.index(row.sample_id) for row in _page(db, job_id, sort=sort)] == expected


def test_a_cursor_of_another_order_is_refused(db: Database, job_id: str):
    _take(db, job_id, "step-000001.parquet", _file(1, [[0.5, 1.5, 2.5]]))
    with db.reading() as connection:
        _, cursor = samples.page(connection, job_id, limit=1, sort="reward")
        with pytest.raises(ValueError, match="next_cursor"):
            samples.page(connection, job_id, limit=1, cursor=cursor)


def test_a_sample_is_found_in_its_own_job_alone(db: Database, submit):
    job_id, other = submit(), submit()
    _take(db, job_id, "step-000001.parquet", _file(1, [[0.5]]))
    sample_id = _page(db, job_id)[0].sample_id
    with db.reading() as connection:
        assert samples.get(connection, job_id, sample_id).reward == 0.5
        assert samples.get(connection, other, sample_id) is None
