"""Log lines over REST, from the end and from there on, and the checkpoints that a job has written."""

from __future__ import annotations

import pytest

from rlhf_cluster.service.store import checkpoints, logs
from rlhf_cluster.wire.relay import LogLine

from .answers import JOBS, refusal


@pytest.fixture
def job_id(submit):
    return submit()["job_id"]


@pytest.fixture
def write(db, job_id):
    def add(component, *lines, offset=0):
        with db.writing() as connection:
            written = [
                LogLine(component=component, offset=offset + index, line=line, time_s=1.0)
                for index, line in enumerate(lines)
            ]
            logs.add(connection, job_id, written)

    return add


def test_who_reads_the_last_lines_and_then_what_follows_reads_each_line_once(api, job_id, write):
    path = f"{JOBS}/{job_id}/logs"
    write("driver", *(f"line {number}" for number in range(10)))
    read = api.get(path, params={"tail": 3}).json()["items"]
    write("driver", *(f"line {number}" for number in range(10, 15)), offset=10)
    while more := api.get(path, params={"after": read[-1]["line_id"], "limit": 2}).json()["items"]:
        read += more
    assert [line["line"] for line in read] == [f"line {number}" for number in range(7, 15)]


def test_lines_are_narrowed_by_component_and_words(api, job_id, write):
    write("driver", "step 1", "an Error")
    write("rollout-0", "an error of a worker")
    path = f"{JOBS}/{job_id}/logs"
    assert [line["line"] for line in api.get(path, params={"component": "rollout-0"}).json()["items"]] == [
        "an error of a worker"
    ]
    found = api.get(path, params={"q": "error"}).json()["items"]
    assert [line["component"] for line in found] == ["driver", "rollout-0"]
    assert api.get(f"{path}/components").json()["items"] == ["driver", "rollout-0"]


@pytest.mark.parametrize("params", [{"after": -1}, {"after": 2**63}, {"tail": 0}, {"limit": 1001}])
def test_places_that_no_log_has_are_refused(api, job_id, params):
    refusal(api.get(f"{JOBS}/{job_id}/logs", params=params), 422, "invalid_request")


def test_checkpoints_are_listed_newest_first(api, db, job_id):
    with db.writing() as connection:
        for step in (5, 10):
            checkpoints.add(connection, job_id, step=step, path=f"/jobs/{step}", time_s=float(step))
    items = api.get(f"{JOBS}/{job_id}/checkpoints").json()["items"]
    assert items == [{"step": step, "path": f"/jobs/{step}", "time_s": float(step)} for step in (10, 5)]


@pytest.mark.parametrize("what", ["logs", "logs/components", "checkpoints"])
def test_of_an_unknown_job_there_is_nothing(api, what):
    refusal(api.get(f"{JOBS}/job_x/{what}"), 404, "not_found")
