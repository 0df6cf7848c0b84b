"""What is asked of a running job of a service: its driver's answer is the command's, as for a job directory."""

from __future__ import annotations

import json
import threading
import time

import pytest

from rlhf_cluster.service.store import commands, jobs, pools


@pytest.fixture
def job_id(service, request):
    """Of a job that runs, named after the test."""
    return service.run(service.submit(request.node.name[:100]))


@pytest.mark.parametrize(
    ("verb", "arguments", "body"),
    [
        ("pause", [], {"command": "Pause"}),
        ("resume", [], {"command": "Resume"}),
        ("checkpoint", [], {"command": "Checkpoint"}),
        ("drain", ["rollout-0"], {"command": "Drain", "worker_id": "rollout-0"}),
        ("restart", ["rollout-0"], {"command": "Restart", "worker_id": "rollout-0"}),
    ],
)
def test_each_verb_asks_the_driver_and_prints_what_it_says(rlhf, service, job_id, verb, arguments, body):
    with service.driver(job_id, says="so it is") as had:
        assert rlhf(verb, job_id, *arguments) == (0, "so it is\n", "")
        code, out, _ = rlhf(verb, job_id, *arguments, "-o", "json")
    assert had == [body, body]
    assert (code, json.loads(out)) == (0, body | {"answer": "so it is"})


def test_a_refusal_of_the_driver_is_exit_code_1_with_its_sentence(rlhf, service, job_id):
    with service.driver(job_id, says="\x1b[31mnot now", ok=False):
        assert rlhf("pause", job_id) == (1, "", "Error: \ufffd[31mnot now\n")


def test_a_driver_that_does_not_answer_is_unavailable_and_the_command_stays(rlhf, service, job_id):
    code, out, err = rlhf("checkpoint", job_id, "--within", "0.2")
    assert (code, out) == (5, "")
    assert "has not answered within 0.2 s; the command stays" in err
    with service.db.reading() as connection:
        assert [row.state for row in commands.waiting(connection, job_id, now_s=time.time())] == ["pending"]


def test_a_job_that_is_over_is_refused_with_what_to_do_instead(rlhf, service, job_id):
    service.end(job_id, "failed", "out of memory")
    code, _, err = rlhf("pause", job_id)
    assert (code, "retry goes on with it" in err) == (1, True)


def test_a_worker_that_is_not_there_is_not_found(rlhf, service, job_id):
    code, _, err = rlhf("drain", job_id, "rollout-9")
    assert (code, "at work are rollout-0, rollout-1, learner-0" in err) == (3, True)


def test_pools_are_scaled_one_after_the_other(rlhf, service, job_id):
    with service.driver(job_id, says="as you wish") as had:
        code, out, _ = rlhf("scale", job_id, "rollout=4", "reward=2")
        assert (code, out) == (0, "as you wish\nas you wish\n")
        lines = rlhf("scale", job_id, "rollout=5", "-o", "jsonl")[1].splitlines()
    assert had[0] == {"command": "Scale", "role": "rollout", "num_workers": 4}
    assert json.loads(lines[0]) == {"command": "Scale", "role": "rollout", "num_workers": 5, "answer": "as you wish"}
    with service.db.reading() as connection:
        assert pools.get(connection, job_id, "rollout").replicas == 5


def test_a_policy_is_asked_to_choose_between_two_numbers(rlhf, service, job_id):
    with service.driver(job_id):
        assert rlhf("scale", job_id, "--auto", "rollout=1..8")[0] == 0
    with service.db.reading() as connection:
        pool = pools.get(connection, job_id, "rollout")
    assert (pool.mode, pool.min_replicas, pool.max_replicas) == ("auto", 1, 8)


def test_a_job_that_waits_keeps_the_size_for_its_driver(rlhf, service):
    job_id = service.submit("scaled-early")
    code, out, _ = rlhf("scale", job_id, "rollout=3")
    assert (code, out) == (0, "rollout=3 is kept for the job's driver, which starts with it: the job is queued\n")


def test_one_size_that_is_refused_keeps_no_other_back(rlhf, service):
    job_id = service.run(service.submit("partly", "rewards=[]", 'algorithm.type="sft"', "train.learn_from=rollouts"))
    with service.driver(job_id, says="no room", ok=False):
        code, _, err = rlhf("scale", job_id, "rollout=4")
    assert (code, err) == (1, "Error: rollout=4: no room\n")


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ([], "say how many"),
        (["rollout=0"], "from 1 to 99999"),
        (["rollout=2", "--auto", "rollout=1..3"], "each role can be given once"),
        (["--auto", "rollout=8..1"], "8 is more than 1"),
        (["--auto", "reward=1..2"], "can choose the number of rollout workers alone"),
    ],
)
def test_sizes_that_make_no_sense_are_usage_errors(rlhf, service, sizes, says):
    code, _, err = rlhf("scale", "whatever", *sizes)
    assert (code, says in err) == (2, True)


def test_stop_cancels_and_waits_until_the_job_is_over(rlhf, service, job_id):
    def end_when_asked():
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            with service.db.reading() as connection:
                if jobs.get(connection, job_id).wanted == "cancel":
                    break
            time.sleep(0.02)
        service.end(job_id, "cancelled", "stopped after step 4")

    thread = threading.Thread(target=end_when_asked)
    thread.start()
    code, out, _ = rlhf("stop", job_id)
    thread.join(30)
    assert (code, out) == (0, "stopped after step 4\nended: cancelled at step 4 of 20\n")


def test_stop_gives_up_waiting_and_says_that_it_goes_on(rlhf, service, job_id):
    code, _, err = rlhf("stop", job_id, "--within", "0.2")
    assert (code, "goes on stopping" in err) == (5, True)


def test_resume_of_a_job_of_a_service_has_nothing_to_take_over(rlhf, service, job_id):
    code, _, err = rlhf("resume", job_id, "--take-over")
    assert (code, "--take-over is for a job directory" in err) == (2, True)
