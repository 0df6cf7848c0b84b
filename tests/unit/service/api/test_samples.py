"""Completions over REST: by step and by reward, narrowed, one by one, and all of them as files."""

from __future__ import annotations

import io
import json

import pyarrow.parquet
import pytest

from rlhf_cluster.service.store import samples

from .answers import JOBS, refusal


def row(step, index, *, reward=0.0, completion="an answer", **more):
    return {
        "step": step,
        "request_id": step * 100 + index // 2,
        "prompt_id": f"p{index // 2}",
        "prompt": "a question",
        "completion": completion,
        "reward": reward,
        "reward/length": reward / 2 if reward is not None else None,
        "length": 7,
        **more,
    }


@pytest.fixture
def job_id(submit):
    return submit()["job_id"]


@pytest.fixture
def sampled(db, job_id):
    """Takes in one file of the job."""

    def add(rows, *, kind="step", step=1):
        with db.writing() as connection:
            assert samples.add_file(connection, job_id, f"{kind}-{step:06d}.parquet", rows, keep=10_000)

    return add


def test_samples_are_paged_from_the_newest_step_or_by_reward(api, job_id, sampled):
    for step in (1, 2):
        sampled([row(step, index, reward=step + index / 10) for index in range(4)], step=step)
    path = f"{JOBS}/{job_id}/samples"
    page = api.get(path, params={"limit": 5}).json()
    rest = api.get(path, params={"limit": 5, "cursor": page["next_cursor"]}).json()
    assert [item["step"] for item in page["items"] + rest["items"]] == [2] * 4 + [1] * 4
    assert rest["next_cursor"] is None
    best = api.get(path, params={"sort": "-reward", "limit": 2}).json()["items"]
    assert [item["reward"] for item in best] == [2.3, 2.2]
    assert best[0]["breakdown"] == {"length": pytest.approx(1.15)}
    refusal(api.get(path, params={"sort": "reward", "cursor": page["next_cursor"] + "x"}), 422, "invalid_cursor")


@pytest.mark.parametrize(
    ("params", "num"),
    [
        ({"step": 2}, 4),
        ({"kind": "eval"}, 2),
        ({"min_reward": 2.0}, 3),
        ({"max_reward": 0.0}, 1),
        ({"min_reward": 1.0, "max_reward": 1.5}, 1),
        ({"q": "NEEDLE"}, 1),
        ({"q": "100%"}, 0),
        ({"request_id": 200}, 2),
    ],
)
def test_samples_are_narrowed(api, job_id, sampled, params, num):
    sampled([row(2, index, reward=float(index)) for index in range(4)], step=2)
    sampled([row(3, 0, completion="a needle", reward=None), row(3, 1, reward=9.0)], kind="eval", step=3)
    items = api.get(f"{JOBS}/{job_id}/samples", params=params).json()["items"]
    assert len(items) == num


@pytest.mark.parametrize(
    "params", [{"min_reward": "nan"}, {"step": -1}, {"kind": "test"}, {"sort": "step"}, {"limit": 201}]
)
def test_what_no_sample_can_have_is_refused(api, job_id, params):
    refusal(api.get(f"{JOBS}/{job_id}/samples", params=params), 422, "invalid_request")


def test_steps_with_samples_are_listed_newest_first(api, job_id, sampled):
    sampled([row(1, 0)], step=1)
    sampled([row(2, 0), row(2, 1)], step=2)
    sampled([row(2, 0)], kind="eval", step=2)
    items = api.get(f"{JOBS}/{job_id}/samples/steps").json()["items"]
    assert items == [
        {"kind": "eval", "step": 2, "num_samples": 1},
        {"kind": "step", "step": 2, "num_samples": 2},
        {"kind": "step", "step": 1, "num_samples": 1},
    ]


def test_one_sample_is_shown_whole_to_its_own_job_only(api, submit, job_id, sampled):
    sampled([row(1, 0, finish_reason="stop")])
    [item] = api.get(f"{JOBS}/{job_id}/samples").json()["items"]
    shown = api.get(f"{JOBS}/{job_id}/samples/{item['sample_id']}").json()
    assert shown == item
    assert shown["body"] == {"finish_reason": "stop"}
    other = submit()["job_id"]
    refusal(api.get(f"{JOBS}/{other}/samples/{item['sample_id']}"), 404, "not_found")
    refusal(api.get(f"{JOBS}/{job_id}/samples/{2**63}"), 422, "invalid_request")


def test_exports_hold_every_sample_once_in_the_order_of_the_list(api, job_id, sampled):
    rewards = [None, float("nan"), 0.25]
    sampled([row(1, index, reward=rewards[index % 3], completion="a\u2028b\ud800") for index in range(450)])
    lines = api.get(f"{JOBS}/{job_id}/samples.jsonl")
    assert lines.headers["content-type"] == "application/jsonl"
    assert lines.headers["content-disposition"] == f'attachment; filename="{job_id}.jsonl"'
    listed = [json.loads(line) for line in lines.text.split("\n")[:-1]]
    assert len({each["sample_id"] for each in listed}) == 450
    assert listed[:50] == api.get(f"{JOBS}/{job_id}/samples").json()["items"]
    answer = api.get(f"{JOBS}/{job_id}/samples.parquet")
    table = pyarrow.parquet.read_table(io.BytesIO(answer.content))
    assert table.column("sample_id").to_pylist() == [each["sample_id"] for each in listed]
    assert table.column("completion").to_pylist() == [each["completion"] for each in listed]
    assert table.column("reward").to_pylist() == [each["reward"] for each in listed]
    assert [dict(each) for each in table.column("breakdown").to_pylist()] == [each["breakdown"] for each in listed]
    assert [json.loads(each) for each in table.column("body").to_pylist()] == [each["body"] for each in listed]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_export_can_be_narrowed_and_of_nothing_is_a_file_without_rows(api, job_id, sampled, ending):
    sampled([row(1, 0, reward=1.0), row(1, 1, reward=2.0)])
    for params, num in (({"min_reward": 2.0}, 1), ({"step": 9}, 0)):
        answer = api.get(f"{JOBS}/{job_id}/samples.{ending}", params=params)
        assert answer.status_code == 200
        rows = (
            pyarrow.parquet.read_table(io.BytesIO(answer.content)).num_rows
            if ending == "parquet"
            else answer.text.count("\n")
        )
        assert rows == num
    refusal(api.get(f"{JOBS}/job_x/samples.{ending}"), 404, "not_found")
