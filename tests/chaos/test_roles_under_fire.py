"""Every role killed, stopped and resumed while a real job runs on real Ray: training goes on and nothing is lost."""

from __future__ import annotations

import random
import signal
import time

import pytest

from rlhf_cluster.testing.live_job import UNDER_FIRE, LiveJob

SERVING = ("rollout worker", "reward server", "reference scorer")


@pytest.fixture
def live(word_world_home, tmp_path):
    """`live(*settings)` starts a job; it is ended with the test."""
    jobs: list[LiveJob] = []

    def start(*settings: str) -> LiveJob:
        jobs.append(
            LiveJob(
                "word-world",
                home=word_world_home,
                runs=tmp_path / f"runs-{len(jobs)}",
                settings=[*UNDER_FIRE, *settings],
            )
        )
        return jobs[-1]

    yield start
    for job in jobs:
        job.__exit__()


@pytest.mark.slow
@pytest.mark.parametrize("max_staleness", [pytest.param(0, marks=pytest.mark.long), 2])
def test_each_role_is_killed_in_turn_and_the_job_ends_well(live, max_staleness):
    job = live("train.num_steps=60", f"train.max_staleness={max_staleness}", "rollout.num_workers=2")
    hit = []
    for step, role in enumerate([*SERVING, "learner"], start=1):
        job.wait_for_step(job.step() + 1)
        hit.append(job.signal(role))
        if role == "learner":
            job.wait(lambda: job.events("LearnerRecovered"), "the learner's recovery")
        else:
            job.wait(lambda: hit[-1] in job.lost(), f"the loss of {hit[-1]}")
        job.wait_for_step(job.step() + 2)
        assert step <= 4
    code, out = job.end()
    assert code == 0, out
    assert job.step() == 60
    assert job.audit()


@pytest.mark.long
def test_each_role_hangs_in_turn_and_is_replaced(live):
    job = live("train.num_steps=100000", "rollout.num_workers=2", "train.max_staleness=1")
    for role in SERVING:
        job.wait_for_step(job.step() + 1)
        hung = job.signal(role, signal.SIGSTOP)
        job.wait(lambda hung=hung: hung in job.lost(), f"the loss of {hung}")
        job.wait_for_step(job.step() + 2)
    job.signal("learner", signal.SIGSTOP)
    recovered = job.wait(lambda: job.events("LearnerRecovered"), "the learner's recovery")
    assert "has not told its status" in recovered[0]["reason"]
    job.wait_for_step(job.step() + 2)
    assert job.call("stop").returncode == 0
    assert job.end()[0] == 130
    job.audit()


@pytest.mark.long
def test_random_kills_and_hangs_by_seed(live):
    draw = random.Random(7)
    job = live("train.num_steps=100000", "rollout.num_workers=2", "train.max_staleness=2", "rollout.spares=1")
    job.wait_for_step(2)
    num_hits = 0
    for _ in range(8):
        role = draw.choice([*SERVING, "learner"])
        job.signal(role, draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP]))
        num_hits += 1
        time.sleep(draw.uniform(1, 4))
    step = job.step()
    job.wait_for_step(step + 5)
    assert len(job.lost()) + len(job.events("LearnerRecovered")) >= num_hits - 2
    assert job.call("stop").returncode == 0
    job.end()
    job.audit()


@pytest.mark.slow
def test_a_role_that_is_lost_too_often_ends_the_job_and_names_the_culprit(live):
    job = live("train.num_steps=100000", "recovery.max_restarts=1", "recovery.backoff_s=0")
    job.wait_for_step(1)
    first = job.signal("reward server")
    job.wait(lambda: first in job.lost())
    second = job.wait(lambda: {w for w in job.alive("reward server") if w != first})
    job.signal("reward server")
    code, out = job.end()
    assert code == 1
    assert f"reward server {second.pop()} was lost and may not be replaced: 1 replacements" in out
    assert "rlhf resume" in out
    job.audit()
