"""A running job is watched, scaled, drained, paused, saved and stopped from another shell, as a person would."""

from __future__ import annotations

import json

import pytest

from rlhf_cluster.testing.live_job import UNDER_FIRE, LiveJob


def said(job: LiveJob, verb: str, *arguments: str) -> str:
    done = job.call(verb, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_workers_come_and_go_while_the_job_trains(word_world_home, tmp_path):
    with LiveJob(
        "word-world",
        home=word_world_home,
        runs=tmp_path,
        settings=[*UNDER_FIRE, "train.num_steps=100000", "train.max_staleness=2"],
    ) as job:
        job.wait_for_step(1)
        assert "rollout: 1 -> 3 wanted" in said(job, "scale", "rollout=3")
        job.wait(lambda: len(job.members("rollout worker")) == 3, "three workers at work")
        before = job.step()
        assert "rollout-0 is being drained; 2 rollout wanted" in said(job, "drain", "rollout-0")
        job.wait(lambda: set(job.members("rollout worker")) == {"rollout-1", "rollout-2"}, "two workers left")
        assert "rollout: 2 -> 1 wanted" in said(job, "scale", "rollout=1")
        job.wait(lambda: len(job.members("rollout worker")) == 1, "one worker left")
        job.wait_for_step(job.step() + 3)
        assert job.step() > before
        assert job.call("drain", "rollout-1").returncode == 1
        assert not job.lost()
        workers = {group["worker_id"] for event in job.events("StepDone") for group in event["groups"]}
        assert {"rollout-0", "rollout-1", "rollout-2"} <= workers
        assert "the job ends after step" in said(job, "stop")
        assert job.end()[0] == 130
        job.audit()


@pytest.mark.long
def test_a_policy_is_turned_on_outlives_a_killed_driver_and_is_turned_off(word_world_home, tmp_path):
    with LiveJob(
        "word-world",
        home=word_world_home,
        runs=tmp_path,
        settings=[*UNDER_FIRE, "train.num_steps=100000", "train.max_staleness=2"],
    ) as job:
        job.wait_for_step(1)
        told = said(job, "scale", "--auto", "rollout=2..2")
        assert "rollout: a policy chooses between 2 and 2 from now on; 1 -> 2 wanted now" in told
        job.wait(lambda: len(job.members("rollout worker")) == 2, "two workers at work")
        assert "policy      2 to 2 rollout workers" in said(job, "status")
        job.kill()
        (job.job_dir / "status.json").unlink()
        job.resume()
        job.wait(lambda: len(job.members("rollout worker")) == 2, "two workers at work again")
        assert "policy      2 to 2 rollout workers" in said(job, "status")
        told = said(job, "scale", "rollout=1")
        assert "rollout: 2 -> 1 wanted from now on; the policy that chose between 2 and 2 is off" in told
        job.wait(lambda: len(job.members("rollout worker")) == 1, "one worker left")
        job.wait_for_step(job.step() + 3)
        said(job, "stop")
        assert job.end()[0] == 130
        job.audit()


@pytest.mark.long
def test_a_job_is_paused_saved_stopped_resumed_and_replayed(word_world_home, tmp_path):
    with LiveJob(
        "word-world",
        home=word_world_home,
        runs=tmp_path,
        settings=[*UNDER_FIRE, "train.num_steps=100000", "checkpoint.every_steps=100000"],
    ) as job:
        job.wait_for_step(2)
        said(job, "pause")
        job.wait(lambda: json.loads((job.job_dir / "status.json").read_text())["state"] == "paused")
        assert "paused" in said(job, "status")
        said(job, "resume")
        job.wait_for_step(job.step() + 2)
        said(job, "checkpoint")
        job.wait(lambda: job.events("CheckpointSaved"), "a checkpoint on demand")
        said(job, "stop")
        assert job.end()[0] == 130
        assert "interrupted" in said(job, "status")
        assert "OK: all" in said(job, "audit")
        step = job.step() - 1
        told = json.loads(said(job, "replay", "--step", str(step), "-o", "json"))
        assert told["steps"][-1]["step"] == step
        assert all(each["is_equal"] for each in told["steps"])
        assert job.call("scale", "rollout=2").returncode == 5
