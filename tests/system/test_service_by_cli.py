"""A job of the service from its submission to its end, by command lines alone: watched, scaled, paused, looked at,
ended and tried again. One real Ray, one job that runs through the tests in their order."""

from __future__ import annotations

import json
import re
import signal
from itertools import islice

import pytest

from .up_service import TINY, UpService, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LONG = (*TINY, "train.num_steps=100000", "train.max_staleness=4", "checkpoint.every_steps=100000")

DEMONSTRATIONS = """
name = "sft"
model = "word-world"
algorithm = { type = "sft" }
train = { num_steps = 2, prompts_per_step = 4 }
data.train = { type = "jsonl", path = "chats.jsonl" }
"""


@pytest.fixture(scope="module")
def job_id(up_service: UpService) -> str:
    said = up_service.told("submit", "word-world", *LONG, "--name", "long walk", "--label", "team=search")
    up_service.wait_for(said["job_id"], lambda job: job["step"] >= 2, "its second step")
    return said["job_id"]


def workers(service: UpService, job_id: str) -> dict[str, str]:
    """State of every rollout worker by its id."""
    found = service.told("workers", job_id)
    return {each["worker_id"]: each["state"] for each in found if each["worker_id"].startswith("rollout-")}


def num_serving(service: UpService, job_id: str) -> int:
    return list(workers(service, job_id).values()).count("serving")


def trained_on(service: UpService, job_id: str) -> set[str]:
    """Workers whose rollouts are in a step."""
    steps = (entry for entry in service.journal(job_id) if entry["event"] == "StepDone")
    return {group["worker_id"] for step in steps for group in step["groups"]}


def test_a_job_is_found_by_id_prefix_name_and_as_the_last_one(up_service, job_id):
    for reference in (job_id, job_id[:-3], "long walk", "@last"):
        shown = up_service.told("show", reference)
        assert (shown["job_id"], shown["state"]) == (job_id, "running")
    [listed] = up_service.told("list", "--label", "team=search")
    assert (listed["job_id"], listed["name"]) == (job_id, "long walk")


def test_its_directory_answers_to_the_same_verbs(up_service, job_id):
    job_dir = str(up_service.job_dir(job_id))
    assert up_service.told("status", job_dir)["job"]["state"] == "running"
    done = up_service.rlhf("checkpoint", job_dir)
    assert (done.code, "a checkpoint is written" in done.out) == (0, True), done.err


@pytest.mark.parametrize("output", ["table", "jsonl"])
def test_ctrl_c_ends_the_watching_and_not_the_job(up_service, job_id, output):
    watching = up_service.started("watch", job_id, "-o", output)
    lines: list[str] = []
    while sum("reward" in line for line in lines) < 3:
        lines.append(line := watching.stdout.readline())
        assert line, watching.communicate()
    watching.send_signal(signal.SIGINT)
    rest, complaint = watching.communicate(timeout=60)
    assert watching.returncode == 130, complaint
    assert f"`rlhf watch {job_id}`" in complaint + rest
    if output == "jsonl":
        steps = [event["step"] for event in map(json.loads, lines) if event["kind"] == "StepDone"]
        assert steps == list(range(steps[0], steps[0] + len(steps)))
    assert up_service.job(job_id)["state"] == "running"


def test_three_workers_are_had_for_the_asking_and_trained_on_and_one_again(up_service, job_id):
    step = up_service.job(job_id)["step"]
    assert up_service.rlhf("scale", job_id, "rollout=3").out == "rollout: 1 -> 3 wanted from now on\n"
    wait(lambda: num_serving(up_service, job_id) == 3, "three at work")
    joined = set(workers(up_service, job_id))
    assert len(joined) == 3
    wait(lambda: joined <= trained_on(up_service, job_id), "steps on what all three have made")
    assert up_service.job(job_id)["step"] > step
    up_service.told("scale", job_id, "rollout=1")
    wait(lambda: len(workers(up_service, job_id)) == 1, "one alone")
    step = up_service.job(job_id)["step"]
    up_service.wait_for(job_id, lambda job: job["step"] >= step + 3, "three more steps")
    [pool] = [each for each in up_service.get(f"/jobs/{job_id}/pools")["items"] if each["pool"] == "rollout"]
    assert (pool["replicas"], pool["num_serving"], pool["observed_generation"]) == (1, 1, pool["generation"])
    told = [event["text"] for event in up_service.events(job_id, "Asked", "CommandAnswered")]
    assert "admin asked: scale, role = rollout, num_workers = 3" in told
    assert "Scale: rollout: 3 -> 1 wanted from now on" in told


def test_a_policy_changes_the_number_and_says_on_the_timeline_why_and_why_no_further(up_service, job_id):
    up_service.told("scale", job_id, "--auto", "rollout=2..3")
    assert "1 -> 2 wanted now" in up_service.events(job_id, "CommandAnswered")[-1]["text"]
    said = wait(lambda: policy_notes(up_service, job_id), "what the policy has to say")[0]
    assert re.match("rollout workers: (stay at 2|grow from 2 to 3): the learner can take .* tokens/s", said)
    up_service.told("scale", job_id, "rollout=1")
    wait(lambda: len(workers(up_service, job_id)) == 1, "one again")


def policy_notes(service: UpService, job_id: str) -> list[str]:
    texts = [event["text"] for event in service.events(job_id, "Notice")]
    return [text for text in texts if text.startswith("rollout workers: ")]


def test_a_paused_job_stands_still_until_it_is_resumed(up_service, job_id):
    assert "no new prompts go out" in up_service.rlhf("pause", job_id).out
    up_service.wait_for(job_id, lambda job: job["state"] == "paused", "its pause")
    wait(lambda: "nothing is under way" in up_service.rlhf("status", job_id).out, "the end of what was under way")
    step = up_service.job(job_id)["step"]
    assert "resumed" in up_service.rlhf("resume", job_id).out
    up_service.wait_for(job_id, lambda job: job["state"] == "running" and job["step"] > step, "its going on")


def test_a_checkpoint_is_written_when_it_is_asked_for(up_service, job_id):
    had = len(up_service.get(f"/jobs/{job_id}/checkpoints")["items"])
    answer = up_service.told("checkpoint", job_id)["answer"]
    step = int(re.search("after step ([0-9]+)", answer)[1])
    wait(lambda: len(up_service.get(f"/jobs/{job_id}/checkpoints")["items"]) > had, "the checkpoint")
    newest = up_service.get(f"/jobs/{job_id}/checkpoints")["items"][0]
    assert newest["step"] == step
    assert newest["path"].endswith(f"step-{newest['step']:06d}")


def test_its_figures_samples_and_lines_are_shown(up_service, job_id):
    assert up_service.told("metrics", job_id)["values"]["reward/mean"] is not None
    [series] = up_service.told("metrics", job_id, "reward/mean")
    assert series["steps"] == list(range(1, len(series["steps"]) + 1))
    plotted = up_service.rlhf("metrics", job_id, "--plot").out
    assert "reward/mean\n" in plotted
    assert re.search("[\u2801-\u28ff]", plotted)
    [sample] = up_service.told("samples", job_id, "--limit", "1", "--sort", "best")
    assert sample["prompt"]
    assert sample["breakdown"]
    assert "> " in up_service.rlhf("samples", job_id).out


def test_its_lines_are_followed(up_service, job_id):
    following = up_service.started("logs", "-f", job_id, "--tail", "1", "--component", "driver")
    # A driver says other things too, such as that it has written a checkpoint.
    found = (re.search("step ([0-9]+)/", line) for line in following.stdout)
    steps = [int(step[1]) for step in islice(filter(None, found), 5)]
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=60)
    assert following.returncode == 130
    assert steps == list(range(steps[0], steps[0] + 5))


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("show", "nothing-of-the-kind"), 3, "there is no job 'nothing-of-the-kind'"),
        (("scale", "@last", "rollout=none"), 2, "has to be a whole number"),
        (("scale", "@last", "reference=2"), 3, "has no reference pool"),
        (("submit", "word-world", "train.num_steps=0"), 2, "train.num_steps"),
        (("list", "--token", "rlhf_wrong"), 4, "token"),
        (("list", "--server", "http://127.0.0.1:1"), 5, "cannot be reached"),
    ],
)
def test_what_goes_wrong_has_an_exit_code_of_its_own(up_service, job_id, arguments, code, complaint):
    said = up_service.rlhf(*arguments)
    assert (said.code, complaint in said.err) == (code, True), said


def test_a_job_that_is_cancelled_keeps_a_checkpoint_and_goes_on_from_there_when_it_is_retried(up_service, job_id):
    waiting = up_service.started("watch", job_id)
    assert up_service.rlhf("cancel", job_id).code == 0
    job = up_service.end_of(job_id)
    assert job["state"] == "cancelled"
    out, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert out.splitlines()[-1].startswith(f"{job_id} cancelled")
    assert (up_service.job_dir(job_id) / "checkpoints" / f"step-{job['step']:06d}").is_dir()
    assert up_service.rlhf("pause", job_id).code == 1
    assert up_service.rlhf("retry", job_id).code == 0
    again = up_service.wait_for(job_id, lambda found: found["step"] > job["step"], "steps of another attempt")
    assert (again["state"], again["num_attempts"]) == ("running", 2)
    resumed = up_service.events(job_id, "JobStarted")[-1]
    assert resumed["text"] == f"resumed: steps {job['step'] + 1} to 100000"
    assert up_service.rlhf("kill", job_id).code == 0
    assert up_service.end_of(job_id)["state"] == "cancelled"


@pytest.mark.long
def test_a_clone_begins_anew_and_is_compared_with_what_it_was_cloned_from(up_service, job_id):
    first = up_service.submit("train.num_steps=3", name="short walk")
    assert up_service.end_of(first)["state"] == "succeeded"
    cloned = up_service.told("clone", first)
    assert cloned["job_id"] != first
    watched = up_service.rlhf("watch", cloned["job_id"])
    assert watched.code == 0, watched.out + watched.err
    compared = up_service.told("compare", first, cloned["job_id"])
    assert compared is not None
    audited = up_service.rlhf("audit", str(up_service.job_dir(cloned["job_id"])))
    assert audited.code == 0, audited.out


def test_a_job_takes_its_data_along_with_its_code(up_service, tmp_path):
    rows = [{"prompt": f"{n} plus 2 ?", "completion": f" it is {n + 2} ."} for n in range(8)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sft.toml").write_text(DEMONSTRATIONS)
    job_id = up_service.told("submit", str(tmp_path / "sft.toml"), "--code", str(tmp_path))["job_id"]
    job = up_service.end_of(job_id)
    assert (job["state"], job["step"]) == ("succeeded", 2), job


def test_a_job_that_fails_is_exit_code_1_and_says_why(up_service):
    said = up_service.rlhf("submit", "word-world", *TINY, "model=nowhere/at-all", "--wait")
    assert said.code == 1, said
    assert "nowhere/at-all" in said.out.splitlines()[-1]
    assert " failed: " in said.out.splitlines()[-1]
