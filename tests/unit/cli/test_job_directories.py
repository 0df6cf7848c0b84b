"""Verbs that look at a job, given the directory of one that runs without a service."""

from __future__ import annotations

import json

import pytest

from rlhf_cluster.driver.observers.journal import FILE_NAME
from rlhf_cluster.driver.status_file import write_view
from rlhf_cluster.records.members import JobView, MemberView, PoolView
from rlhf_cluster.testing import make_job


@pytest.fixture
def job_dir(tmp_path):
    """Two steps, an evaluation, a view and a log."""
    return directory(tmp_path / "job", kl_coef=0.0)


def directory(path, *, kl_coef):
    path.mkdir()
    (path / "job.json").write_text(make_job([f"algorithm.kl_coef={kl_coef}"]).model_dump_json())
    sample = {"prompt_id": "p0", "prompt": "hello", "completion": "friend", "reward": 0.5}
    entries = [
        {"event": "StepDone", "time_s": 1.0, "step": 1, "version": 1, "metrics": {"reward/mean": 0.1}, "groups": []},
        {"event": "StepDone", "time_s": 2.0, "step": 2, "version": 2, "metrics": {"reward/mean": 0.3}, "groups": []},
        {"event": "Evaluated", "time_s": 3.0, "step": 2, "metrics": {"eval/reward_mean": None}, "samples": [sample]},
    ]
    (path / FILE_NAME).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    member = MemberView(role="rollout worker", worker_id="rollout-0", state="serving", version=2)
    pool = PoolView(role="rollout worker", desired=1, num_restarts=0, last_error="", members=(member,))
    view = JobView(
        time_s=4.0,
        epoch=1,
        job_name="test",
        state="succeeded",
        phase="",
        step=2,
        num_steps=2,
        num_in_flight=0,
        num_complete=0,
        waiting_for="",
        bottleneck="",
        pools=(pool,),
    )
    write_view(path, view)
    (path / "logs").mkdir()
    (path / "logs" / "rollout-0.log").write_text("loading\nready\n")
    return path


def test_metrics_come_from_the_journal(rlhf, job_dir):
    code, out, _ = rlhf("metrics", str(job_dir))
    assert code == 0
    assert [line.split() for line in out.splitlines()[3:]] == [["eval/reward_mean", "-"], ["reward/mean", "0.3"]]
    (series,) = json.loads(rlhf("metrics", str(job_dir), "reward/*", "-o", "json")[1])
    assert (series["steps"], series["values"]) == ([1, 2], [0.1, 0.3])
    assert "no value" in rlhf("metrics", str(job_dir), "--plot")[1]


def test_samples_are_those_of_evaluations(rlhf, job_dir):
    assert rlhf("samples", str(job_dir)) == (0, "eval 2  reward 0.5\n> hello\nfriend\n", "")
    assert rlhf("samples", str(job_dir), "--min-reward", "0.9")[1] == "there is no such sample\n"


def test_logs_are_its_files(rlhf, job_dir):
    assert rlhf("logs", str(job_dir), "--tail", "1") == (0, "rollout-0  ready\n", "")
    code, _, err = rlhf("logs", str(job_dir), "--component", "learner-0")
    assert (code, "it has rollout-0" in err) == (3, True)


def test_following_the_logs_of_a_job_that_has_ended_ends(rlhf, job_dir):
    assert rlhf("logs", "-f", str(job_dir), "--search", "load") == (0, "rollout-0  loading\n", "")


def test_workers_and_the_job_are_shown_from_its_status_file(rlhf, job_dir):
    code, out, _ = rlhf("workers", str(job_dir))
    assert (code, "rollout-0  serving" in out) == (0, True)
    code, out, _ = rlhf("show", str(job_dir))
    assert (code, "test: succeeded, step 2 of 2" in out) == (0, True)
    assert rlhf("watch", str(job_dir))[0] == 0


def test_directories_are_compared_without_a_service(rlhf, job_dir, tmp_path):
    other = directory(tmp_path / "other", kl_coef=0.25)
    code, out, _ = rlhf("compare", str(job_dir), str(other))
    assert code == 0
    assert ["algorithm.kl_coef", "0.0", "0.25"] in [line.split() for line in out.splitlines()]


def test_a_name_that_is_no_directory_is_for_the_service(rlhf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert rlhf("show", "runs")[0] == 5
    assert "no job directory" in rlhf("show", "./runs")[2]
