"""What is asked of whole jobs, what it leaves for the reconciler and the driver, and when it is refused."""

from __future__ import annotations

import time

import pytest

from rlhf_cluster.service.asking import answered
from rlhf_cluster.service.store import attempts, commands, events, jobs

from .answers import JOBS, refusal

VERBS = ("cancel", "kill", "pause", "resume", "checkpoint")


@pytest.fixture
def ask(api):
    return lambda job, verb, **headers: api.post(f"{JOBS}/{job['job_id']}/{verb}", headers=headers)


def row_of(db, job):
    with db.reading() as connection:
        return jobs.get(connection, job["job_id"])


def test_cancelling_says_what_people_want_and_leaves_the_deed_to_the_reconciler(ask, submit, db):
    job = submit()
    answer = ask(job, "cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert row_of(db, job).wanted == "cancel"


def test_who_wants_a_job_killed_does_not_end_it_gently_afterwards(ask, submit, db):
    job = submit()
    for verb, wanted in (("cancel", "cancel"), ("kill", "kill"), ("cancel", "kill")):
        assert ask(job, verb).status_code == 202
        assert row_of(db, job).wanted == wanted


@pytest.mark.parametrize("verb", ["pause", "resume", "checkpoint"])
def test_a_verb_for_the_driver_is_a_command_that_waits_for_it(api, ask, submit, verb):
    job = submit()
    answer = ask(job, verb)
    assert answer.status_code == 202
    command = answer.json()
    assert (command["body"], command["state"]) == ({"command": verb.capitalize()}, "pending")
    assert (command["created_by"], command["job_id"]) == ("submit", job["job_id"])
    url = f"{JOBS}/{job['job_id']}/commands"
    assert api.get(url).json()["items"] == [api.get(f"{url}/{command['command_id']}").json()] == [command]


def test_a_verb_sent_twice_under_one_key_is_asked_once(api, ask, submit):
    job = submit()
    first, again = (ask(job, "pause", **{"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json() == again.json()
    assert len(api.get(f"{JOBS}/{job['job_id']}/commands").json()["items"]) == 1
    refusal(ask(job, "resume", **{"Idempotency-Key": "k"}), 422, "idempotency_key_reused")


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_asked_of_a_job_that_is_over(ask, submit, end, verb):
    job = submit()
    end(job["job_id"], "failed", "out of memory")
    assert "has failed: out of memory; retry goes on" in refusal(ask(job, verb), 409, "job_is_over")


@pytest.mark.parametrize("verb", [*VERBS, "retry", "clone"])
def test_every_verb_needs_a_job_and_the_scope_to_submit(api_as, ask, submit, verb):
    job = submit()
    refusal(ask({"job_id": "job_none"}, verb), 404, "not_found")
    refusal(api_as("label").post(f"{JOBS}/{job['job_id']}/{verb}"), 403, "forbidden")


def test_a_retry_is_one_more_attempt_from_where_the_job_ended(api, ask, submit, end, db):
    job = submit(max_attempts=1)
    with db.writing() as connection:
        attempts.add(connection, job["job_id"], 1, submission_id="s-1", now_s=1.0)
        attempts.end(
            connection,
            job["job_id"],
            1,
            outcome="failed",
            exit_code=1,
            message="the job file is wrong",
            may_be_retried=False,
            now_s=2.0,
        )
        jobs.want(connection, job["job_id"], "cancel", now_s=3.0)
    end(job["job_id"])
    answer = ask(job, "retry")
    assert (answer.status_code, answer.json()["state"], answer.json()["ended_s"]) == (202, "queued", None)
    row = row_of(db, job)
    assert (row.wanted, row.max_attempts) == ("run", 2)
    listed = api.get(f"{JOBS}/{job['job_id']}/attempts").json()["items"]
    assert [(each["number"], each["state"]) for each in listed] == [(2, "created"), (1, "ended")]
    assert listed[0]["submission_id"] == f"{job['job_id']}-2"
    assert api.get(f"{JOBS}/{job['job_id']}/attempts/1").json() == listed[1]
    refusal(api.get(f"{JOBS}/{job['job_id']}/attempts/3"), 404, "not_found")


def test_a_job_that_never_began_can_be_tried_too(ask, submit, end, db):
    job = submit()
    end(job["job_id"], "cancelled", "cancelled before it began")
    assert ask(job, "retry").status_code == 202
    with db.reading() as connection:
        assert [row.number for row in attempts.of_job(connection, job["job_id"])] == [1]


def test_only_what_failed_or_was_cancelled_is_tried_again(ask, submit, end):
    job = submit()
    refusal(ask(job, "retry"), 409, "job_is_not_over")
    end(job["job_id"], "succeeded", "")
    assert "clone it" in refusal(ask(job, "retry"), 409, "job_has_succeeded")


def test_a_clone_is_a_new_job_of_the_same_config(api, ask, submit, end):
    job = submit(name="mine", labels={"a": "b"})
    end(job["job_id"])
    answer = ask(job, "clone")
    clone = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"{JOBS}/{clone['job_id']}")
    assert clone["job_id"] != job["job_id"]
    for same in ("name", "labels", "source", "config", "changed", "max_attempts", "num_steps"):
        assert clone[same] == job[same]
    assert (clone["state"], clone["message"]) == ("queued", "")
    assert len(api.get(f"{JOBS}/{clone['job_id']}/pools").json()["items"]) == 3


def test_what_people_ask_stands_in_the_timeline(ask, submit, db):
    job = submit()
    ask(job, "pause")
    ask(job, "cancel")
    ask(job, "cancel")
    with db.reading() as connection:
        rows = events.after(connection, 0, job_id=job["job_id"])
    assert [row.text for row in rows] == ["submitted by submit", "submit asked: pause", "submit asked: cancel"]
    assert {row.topic for row in rows} == {"jobs"}


def test_an_answer_ends_a_command_and_the_first_one_counts(api, ask, submit, db):
    job = submit()
    command_id = ask(job, "checkpoint").json()["command_id"]
    for ok, text in ((True, "a checkpoint is written after step 1"), (False, "late")):
        with db.writing() as connection:
            answered(connection, commands.get(connection, command_id), ok=ok, text=text, now_s=time.time())
    told = api.get(f"{JOBS}/{job['job_id']}/commands/{command_id}").json()
    assert (told["state"], told["answer"]) == ("done", "a checkpoint is written after step 1")


def test_a_command_is_shown_under_its_own_job_alone(api, ask, submit):
    one, two = submit(), submit()
    command_id = ask(one, "pause").json()["command_id"]
    refusal(api.get(f"{JOBS}/{two['job_id']}/commands/{command_id}"), 404, "not_found")
    refusal(api.get(f"{JOBS}/{one['job_id']}/commands", params={"cursor": "!"}), 422, "invalid_cursor")
