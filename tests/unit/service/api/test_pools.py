"""Pools as desired state: generations, who may be elastic, and what the driver is told and has answered."""

from __future__ import annotations

import time

import pytest

from rlhf_cluster.service.asking import answered
from rlhf_cluster.service.store import commands

from .answers import JOBS, refusal


@pytest.fixture
def job(submit):
    return submit()


@pytest.fixture
def pool(api, job):
    def show(name="rollout"):
        answer = api.get(f"{JOBS}/{job['job_id']}/pools/{name}")
        assert answer.status_code == 200, answer.text
        return answer.json() | {"etag": answer.headers["etag"]}

    return show


@pytest.fixture
def put(api, job):
    def send(name="rollout", etag="*", **body):
        headers = {} if etag is None else {"If-Match": etag}
        return api.put(f"{JOBS}/{job['job_id']}/pools/{name}", json=body, headers=headers)

    return send


@pytest.fixture
def reply(db, job):
    """As the relay brings the driver's answer to the newest command."""

    def send(*, ok=True, index=0):
        with db.writing() as connection:
            rows, _ = commands.of_job(connection, job["job_id"], limit=10)
            answered(connection, rows[index], ok=ok, text="", now_s=time.time())

    return send


def bodies(api, job):
    return [each["body"] for each in api.get(f"{JOBS}/{job['job_id']}/commands").json()["items"]]


def test_a_job_has_the_pools_of_its_config_before_it_begins(api, submit):
    job = submit("rollout.num_workers=2", "algorithm.kl_coef=0.1")
    pools = api.get(f"{JOBS}/{job['job_id']}/pools").json()["items"]
    assert [(each["pool"], each["replicas"], each["is_elastic"]) for each in pools] == [
        ("rollout", 2, True),
        ("reward", 1, True),
        ("reference", 1, True),
        ("learner", 1, False),
    ]
    assert {each["mode"] for each in pools} == {"manual"}


def test_what_is_there_comes_from_the_driver(pool, job, saw, busy_view):
    assert (pool()["num_serving"], pool()["workers"]) == (0, [])
    saw(job["job_id"], busy_view)
    rollout = pool()
    assert (rollout["num_serving"], rollout["num_pending"], rollout["num_draining"]) == (1, 1, 0)
    assert rollout["pending_reason"] == "no node has 1 GPU free"
    assert (rollout["num_restarts"], rollout["last_error"]) == (1, "rollout-7 died")
    assert [(each["worker_id"], each["lag"]) for each in rollout["workers"]] == [("rollout-0", 1), ("rollout-1", 0)]


def test_a_number_of_replicas_becomes_a_generation_and_a_scale_command(api, job, pool, put, reply):
    before = pool()
    answer = put(etag=before["etag"], replicas=3)
    assert answer.status_code == 202
    assert (answer.json()["replicas"], answer.json()["generation"]) == (3, before["generation"] + 1)
    assert answer.json()["observed_generation"] == before["generation"]
    assert bodies(api, job) == [{"command": "Scale", "role": "rollout", "num_workers": 3}]
    reply()
    assert pool()["observed_generation"] == pool()["generation"]


def test_a_range_becomes_an_autoscale_command_and_a_number_again(api, job, pool, put):
    answer = put(mode="auto", min_replicas=2, max_replicas=8)
    told = answer.json()
    assert (told["mode"], told["replicas"], told["min_replicas"], told["max_replicas"]) == ("auto", 2, 2, 8)
    put(replicas=4)
    assert bodies(api, job) == [
        {"command": "Scale", "role": "rollout", "num_workers": 4},
        {"command": "Autoscale", "role": "rollout", "min_workers": 2, "max_workers": 8},
    ]
    assert (pool()["mode"], pool()["min_replicas"], pool()["max_replicas"]) == ("manual", None, None)


def test_of_two_people_who_change_a_pool_at_once_one_is_told(api, job, pool, put, saw, busy_view):
    etag = pool()["etag"]
    saw(job["job_id"], busy_view)  # progress is no change
    assert put(etag=etag, replicas=2).status_code == 202
    assert "changed meanwhile" in refusal(put(etag=etag, replicas=9), 412, "changed_meanwhile")
    assert "If-Match" in refusal(put(etag=None, replicas=9), 428, "if_match_required")
    assert put(etag=str(pool()["generation"]), replicas=4).status_code == 202
    assert (pool()["replicas"], len(bodies(api, job))) == (4, 2)


def test_a_client_that_has_the_newest_pool_gets_304(api, job, pool):
    url, etag = f"{JOBS}/{job['job_id']}/pools/rollout", pool()["etag"]
    assert api.get(url, headers={"If-None-Match": etag}).status_code == 304


def test_the_learner_cannot_grow_or_shrink_and_the_answer_says_why(api, job, pool, put):
    assert "ranks that train together" in refusal(put("learner", replicas=2), 409, "pool_not_elastic")
    assert pool("learner")["generation"] == 1
    assert bodies(api, job) == []


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("reference", {"replicas": 2}, 404, "not_found"),
        ("critic", {"replicas": 2}, 422, "invalid_request"),
        ("rollout", {"replicas": 0}, 422, "invalid_request"),
        ("rollout", {}, 422, "invalid_request"),
        ("rollout", {"mode": "auto", "min_replicas": 4, "max_replicas": 2}, 422, "invalid_request"),
        ("reward", {"mode": "auto", "min_replicas": 1, "max_replicas": 2}, 409, "pool_not_automatic"),
    ],
)
def test_a_wish_that_cannot_be_had_is_refused(put, name, body, status, code):
    assert refusal(put(name, **body), status, code)


def test_only_who_may_submit_sets_pools_and_only_while_the_job_is_not_over(api_as, job, put, end):
    url = f"{JOBS}/{job['job_id']}/pools/rollout"
    refusal(api_as("read").put(url, json={"replicas": 2}, headers={"If-Match": "*"}), 403, "forbidden")
    end(job["job_id"])
    refusal(put(replicas=2), 409, "job_is_over")


def test_only_the_answer_to_the_newest_wish_says_that_it_is_obeyed(pool, put, reply):
    put(replicas=2)
    put(replicas=3)
    reply(index=1, ok=True)
    assert pool()["observed_generation"] == 1
    reply(index=0, ok=True)
    assert pool()["observed_generation"] == pool()["generation"] == 3


def test_a_refused_wish_is_not_obeyed(pool, put, reply):
    put(replicas=2)
    reply(ok=False)
    assert (pool()["generation"], pool()["observed_generation"]) == (2, 1)


@pytest.fixture
def drain(api, job):
    return lambda worker_id: api.post(f"{JOBS}/{job['job_id']}/workers/{worker_id}/drain")


@pytest.fixture
def restart(api, job):
    return lambda worker_id, **more: api.post(f"{JOBS}/{job['job_id']}/workers/{worker_id}/restart", **more)


def test_a_restarted_worker_leaves_its_pool_as_large_as_it_was(job, saw, busy_view, put, pool, restart, reply):
    put(replicas=2)
    reply()
    saw(job["job_id"], busy_view)
    answer = restart("rollout-0")
    assert (answer.status_code, answer.json()["body"]) == (202, {"command": "Restart", "worker_id": "rollout-0"})
    reply()
    assert (pool()["replicas"], pool()["generation"], pool()["observed_generation"]) == (2, 2, 2)


def test_a_restart_that_is_asked_again_under_its_key_is_one(job, saw, busy_view, restart):
    saw(job["job_id"], busy_view)
    twice = [restart("rollout-0", headers={"Idempotency-Key": "a-key"}).json()["command_id"] for _ in range(2)]
    assert twice[0] == twice[1]


def test_only_a_worker_that_is_there_and_is_no_rank_can_be_restarted(api_as, job, saw, busy_view, restart, end):
    refusal(api_as("label").post(f"{JOBS}/{job['job_id']}/workers/rollout-0/restart"), 403, "forbidden")
    saw(job["job_id"], busy_view)
    assert "rollout-0, rollout-1" in refusal(restart("rollout-9"), 404, "not_found")
    assert "restarted as a whole" in refusal(restart("learner-0"), 409, "pool_not_elastic")
    end(job["job_id"])
    refusal(restart("rollout-0"), 409, "job_is_over")


def test_a_drained_worker_leaves_a_smaller_pool_behind(api, job, saw, busy_view, put, pool, drain, reply):
    put(replicas=2)
    reply()
    saw(job["job_id"], busy_view)
    answer = drain("rollout-0")
    assert (answer.status_code, answer.json()["body"]) == (202, {"command": "Drain", "worker_id": "rollout-0"})
    assert pool()["replicas"] == 2
    reply()
    assert (pool()["replicas"], pool()["generation"], pool()["observed_generation"]) == (1, 3, 3)


def test_a_drain_says_nothing_of_a_pool_whose_size_is_being_set_anyway(job, saw, busy_view, put, pool, drain, reply):
    put(replicas=2)
    saw(job["job_id"], busy_view)
    drain("rollout-0")
    reply()
    assert (pool()["replicas"], pool()["generation"], pool()["observed_generation"]) == (2, 2, 1)


def test_only_a_worker_that_is_there_and_is_no_rank_can_be_drained(job, saw, busy_view, drain, end):
    assert "none yet" in refusal(drain("rollout-0"), 404, "not_found")
    saw(job["job_id"], busy_view)
    assert "rollout-0, rollout-1" in refusal(drain("rollout-9"), 404, "not_found")
    assert "restarted as a whole" in refusal(drain("learner-0"), 409, "pool_not_elastic")
    end(job["job_id"])
    refusal(drain("rollout-0"), 409, "job_is_over")


def test_workers_are_listed_pool_by_pool(api, job, saw, busy_view):
    url = f"{JOBS}/{job['job_id']}/workers"
    assert api.get(url).json() == {"items": [], "next_cursor": None}
    saw(job["job_id"], busy_view)
    listed = [(each["worker_id"], each["pool"], each["state"]) for each in api.get(url).json()["items"]]
    assert listed == [
        ("rollout-0", "rollout", "serving"),
        ("rollout-1", "rollout", "pending"),
        ("reward-0", "reward", "serving"),
        ("learner-0", "learner", "serving"),
    ]


def test_what_an_older_driver_did_not_say_of_its_workers_is_as_by_default(api, job, pool, saw):
    member = {"role": "rollout worker", "worker_id": "rollout-0", "state": "serving"}
    told = {"role": "rollout worker", "members": [member, {"role": "rollout worker"}]}
    saw(
        job["job_id"],
        {"step": 1, "num_steps": 9, "pools": [told], "time_split": [{"role": "learner", "busy": 0.5, "waiting": 0.5}]},
    )
    shown = pool()
    assert [(each["worker_id"], each["version"], each["since_s"]) for each in shown["workers"]] == [
        ("rollout-0", -1, 0)
    ]
    assert (shown["num_serving"], shown["num_restarts"], shown["last_error"]) == (1, 0, "")
    assert api.get(f"{JOBS}/{job['job_id']}/pools").status_code == 200
    assert api.get(f"{JOBS}/{job['job_id']}").json()["time_split"][0]["other"] == 0.0
