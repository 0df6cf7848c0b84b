"""What jobs measure, over REST: the newest values, whole series and what came since, and several jobs at once."""

from __future__ import annotations

import pytest

from rlhf_cluster.service.store import metrics

from .answers import JOBS, refusal


@pytest.fixture
def measure(db):
    """Metrics of some steps of a job."""

    def add(job_id, steps, **values):
        with db.writing() as connection:
            for step in steps:
                named = {name.replace("_", "/", 1): value(step) for name, value in values.items()}
                metrics.add(connection, job_id, step=step, time_s=float(step), values=named)

    return add


def test_the_newest_value_of_every_metric_is_told_and_null_where_it_was_no_number(api, submit, measure):
    job_id = submit()["job_id"]
    assert api.get(f"{JOBS}/{job_id}/metrics").json() == {"values": {}, "step": -1}
    measure(job_id, range(3), reward_mean=lambda step: step / 2, learner_kl=lambda step: float("nan"))
    latest = api.get(f"{JOBS}/{job_id}/metrics").json()
    assert latest == {"values": {"learner/kl": None, "reward/mean": 1.0}, "step": 2}


def test_a_series_that_is_fetched_piece_by_piece_is_the_whole_one(api, submit, measure):
    job_id = submit()["job_id"]
    path, keys = f"{JOBS}/{job_id}/metrics/series", ["reward/mean", "eval/mean", "no/such"]
    points, last_step = {key: {} for key in keys}, -1
    for step in range(6):
        measure(job_id, [step], reward_mean=lambda step: step * 1.0)
        for late in (False, True):
            if late:  # an evaluation comes after the step that it is about was fetched
                measure(job_id, [step], eval_mean=lambda step: step * 10.0)
            delta = api.get(path, params={"key": keys, "after_step": last_step}).json()
            last_step = delta["last_step"]
            for each in delta["series"]:
                points[each["key"]] |= dict(zip(each["steps"], each["values"], strict=True))
    whole = api.get(path, params={"key": keys}).json()["series"]
    assert points == {each["key"]: dict(zip(each["steps"], each["values"], strict=True)) for each in whole}
    assert points["eval/mean"] == {step: step * 10.0 for step in range(6)}
    assert points["no/such"] == {}


def test_a_long_series_is_told_in_so_many_points_with_their_bounds(api, submit, measure):
    job_id = submit()["job_id"]
    measure(job_id, range(100), reward_mean=float)
    answer = api.get(f"{JOBS}/{job_id}/metrics/series", params={"key": "reward/mean", "max_points": 10}).json()
    [series] = answer["series"]
    assert series["steps"][-1] == 99
    assert len(series["steps"]) == len(series["values"]) == len(series["lows"]) == len(series["highs"]) == 10
    assert (series["lows"][0], series["values"][0], series["highs"][0]) == (0, 4.5, 9)


def test_one_metric_of_several_jobs_is_compared(api, submit, measure):
    one, two = submit()["job_id"], submit()["job_id"]
    measure(one, range(2), reward_mean=float)
    answer = api.get("/api/v1/metrics/compare", params={"job": [one, two], "key": "reward/mean"}).json()
    assert answer[one]["values"] == [0.0, 1.0]
    assert answer[two]["steps"] == []
    refusal(api.get("/api/v1/metrics/compare", params={"job": [one, "job_x"], "key": "reward/mean"}), 404, "not_found")


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"key": "a", "after_step": -2},
        {"key": "a", "after_step": 2**31},
        {"key": "a", "max_points": 0},
        {"key": "a" * 201},
    ],
)
def test_a_series_is_asked_for_with_keys_and_sensible_numbers(api, submit, params):
    job_id = submit()["job_id"]
    refusal(api.get(f"{JOBS}/{job_id}/metrics/series", params=params), 422, "invalid_request")


def test_metrics_of_an_unknown_job_are_not_found(api):
    refusal(api.get(f"{JOBS}/job_x/metrics"), 404, "not_found")
    refusal(api.get(f"{JOBS}/job_x/metrics/series", params={"key": "a"}), 404, "not_found")
