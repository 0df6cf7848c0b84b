"""The verbs for a running job, against a driver in another process that has only the directory in common."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf_cluster.driver.status_file import FILE_NAME, read_view

STAND_IN = Path(__file__).with_name("driver_stand_in.py")


@pytest.fixture
def job_dir(tmp_path: Path) -> Path:
    """A job that nobody drives."""
    (tmp_path / "job.json").write_text("{}")
    return tmp_path


@pytest.fixture
def driver(job_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The driver of the job; it has told its status."""
    child = subprocess.Popen([sys.executable, str(STAND_IN), str(job_dir)])
    try:
        deadline_s = time.monotonic() + 60
        while not (job_dir / FILE_NAME).exists() and child.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert child.poll() is None
        yield child
    finally:
        child.kill()
        child.wait(timeout=60)


def waiting(job_dir: Path) -> list[Path]:
    return list((job_dir / "control" / "inbox").glob("*.json"))


@pytest.mark.usefixtures("driver")
def test_every_verb_prints_what_the_driver_says(rlhf, job_dir):
    where = str(job_dir)
    assert rlhf("pause", where) == (0, "paused now\n", "")
    assert rlhf("resume", where) == (0, "running now\n", "")
    assert rlhf("checkpoint", where) == (0, "saved step 4\n", "")
    assert rlhf("drain", where, "rollout-0") == (0, "running now\n", "")
    assert rlhf("restart", where, "rollout-0") == (0, "rollout-0 is restarted\n", "")
    assert rlhf("scale", where, "rollout=3", "reward=2") == (
        0,
        "rollout: 3 from now on\nreward: 2 from now on\n",
        "",
    )
    assert rlhf("scale", where, "--auto", "rollout=1..8", "reward=2") == (
        0,
        "reward: 2 from now on\nrollout: a policy chooses between 1 and 8\n",
        "",
    )
    assert waiting(job_dir) == []


@pytest.mark.usefixtures("driver")
def test_answers_as_json(rlhf, job_dir):
    _, out, _ = rlhf("pause", str(job_dir), "-o", "json")
    assert json.loads(out) == {"command": "Pause", "answer": "paused now"}
    _, out, _ = rlhf("scale", str(job_dir), "rollout=3", "-o", "json")
    assert json.loads(out) == [
        {"command": "Scale", "role": "rollout", "num_workers": 3, "answer": "rollout: 3 from now on"}
    ]


@pytest.mark.usefixtures("driver")
def test_a_refusal_of_the_driver_is_exit_code_1_with_its_sentence(rlhf, job_dir):
    code, out, err = rlhf("drain", str(job_dir), "rollout-9")
    assert (code, out) == (1, "")
    assert err == "Error: there is no worker 'rollout-9': there is rollout-0\n"


def test_stop_waits_until_the_job_has_ended(rlhf, job_dir, driver):
    code, out, _ = rlhf("stop", str(job_dir))
    assert (code, out) == (0, "stopping after step 4\nended: interrupted at step 4 of 20\n")
    assert driver.wait(timeout=60) == 0
    code, out, _ = rlhf("status", str(job_dir))
    assert code == 0
    assert f"none; `rlhf resume {job_dir}` goes on" in out


def test_a_driver_that_dies_over_a_command_is_noticed_and_the_command_withdrawn(rlhf, job_dir, driver):
    code, _, err = rlhf("drain", str(job_dir), "death")
    assert code == 5
    assert f"no driver is running in {job_dir}" in err
    assert waiting(job_dir) == []
    code, out, _ = rlhf("status", str(job_dir))
    assert code == 0
    assert f"the driver of this job (pid {driver.pid}) is gone; `rlhf resume {job_dir}` goes on" in out


@pytest.mark.usefixtures("driver")
def test_a_driver_that_does_not_answer_is_unavailable(rlhf, job_dir):
    code, _, err = rlhf("drain", str(job_dir), "silence", "--within", "0.3")
    assert code == 5
    assert "has not answered within 0.3 s; the command is withdrawn" in err
    assert waiting(job_dir) == []
    code, _, err = rlhf("scale", str(job_dir), "rollout=2", "--within", "0.3")
    assert code == 5
    assert "the command stays until it does" in err
    assert len(waiting(job_dir)) == 1


@pytest.mark.parametrize("arguments", [["pause"], ["checkpoint"], ["stop"], ["drain", "rollout-0"]])
def test_without_a_driver_commands_are_refused_and_leave_nothing(rlhf, job_dir, arguments):
    verb, *rest = arguments
    code, _, err = rlhf(verb, str(job_dir), *rest)
    assert code == 5
    assert f"`rlhf resume {job_dir}` goes on" in err
    assert waiting(job_dir) == []


def test_a_scale_waits_for_the_next_driver(rlhf, job_dir, request):
    code, _, err = rlhf("scale", str(job_dir), "rollout=5")
    assert code == 5
    assert "then this command holds" in err
    request.getfixturevalue("driver")
    deadline_s = time.monotonic() + 30
    while (view := read_view(job_dir)) is None or view.pools[0].desired != 5:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert waiting(job_dir) == []


def test_without_a_driver_every_size_of_a_scale_waits_for_the_next_one(rlhf, job_dir):
    code, _, err = rlhf("scale", str(job_dir), "rollout=5", "reward=2")
    assert code == 5
    assert err.count("then this command holds") == 2
    sizes = [json.loads(command.read_text()) for command in waiting(job_dir)]
    assert {size["role"]: size["num_workers"] for size in sizes} == {"rollout": 5, "reward": 2}


@pytest.mark.parametrize("verb", ["status", "pause", "stop", "checkpoint", "resume"])
def test_a_directory_without_a_job_is_not_found(rlhf, tmp_path, verb):
    code, _, err = rlhf(verb, str(tmp_path))
    assert code == 3
    assert "no job directory" in err


@pytest.mark.parametrize("content", ["", '{"name": "tes', "[1]", '{"nam": 1}', "\0\0"])
@pytest.mark.parametrize("verb", [["resume"], ["audit"], ["replay", "--step", "0"]])
def test_a_job_file_that_was_damaged_is_named(rlhf, job_dir, verb, content):
    (job_dir / "ledger").mkdir()
    (job_dir / "job.json").write_text(content)
    code, _, err = rlhf(verb[0], str(job_dir), *verb[1:])
    assert code == 2
    assert str(job_dir / "job.json") in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rolout=3"], "did you mean 'rollout'?"),
        (["learner=2"], "the learner has a fixed size, learner.num_ranks of the job file"),
        (["rollout"], "has to be ROLE=N, as in rollout=3"),
        (["rollout=0"], "from 1 to 99999"),
        (["rollout=-1"], "from 1 to 99999"),
        (["rollout=1e9"], "from 1 to 99999"),
        (["rollout=2", "rollout=3"], "each role can be given once"),
        ([], "ROLE=N, as in rollout=3, or --auto rollout=1..8"),
        (["--auto", "rollout=3"], "has to be ROLE=MIN..MAX, as in rollout=1..8"),
        (["--auto", "rollout=1..08"], "has to be ROLE=MIN..MAX"),
        (["--auto", "rollout=0..2"], "has to be ROLE=MIN..MAX"),
        (["--auto", "rollout=3..2"], "3 is more than 2"),
        (["--auto", "reward=1..2"], "a policy can choose the number of rollout workers alone"),
        (["--auto", "rollout=1..2", "rollout=2"], "each role can be given once"),
    ],
)
def test_sizes_that_cannot_be_meant_are_refused_before_anything_is_sent(rlhf, job_dir, arguments, message):
    code, _, err = rlhf("scale", str(job_dir), *arguments)
    assert code == 2
    assert message in err
    assert waiting(job_dir) == []


@pytest.mark.usefixtures("driver")
def test_status_as_json_holds_the_view_and_the_driver(rlhf, job_dir):
    code, out, _ = rlhf("status", str(job_dir), "-o", "json")
    told = json.loads(out)
    assert code == 0
    assert told["driver"]["is_alive"] is True
    assert told["job"]["pools"][0]["members"][0]["worker_id"] == "rollout-0"


def test_watch_shows_changes_until_the_job_has_ended(job_dir, driver, rlhf):
    watching = subprocess.Popen(
        [sys.executable, "-m", "rlhf_cluster.cli", "status", str(job_dir), "--watch", "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    try:
        first = json.loads(watching.stdout.readline())
        rlhf("stop", str(job_dir))
        driver.wait(timeout=60)  # so that it is no zombie of this process
        last = json.loads(watching.stdout.read().splitlines()[-1])
        assert watching.wait(timeout=60) == 0
    finally:
        watching.kill()
        watching.wait(timeout=60)
    assert (first["job"]["state"], last["job"]["state"]) == ("running", "interrupted")
    assert last["driver"]["is_alive"] is False


def test_a_job_that_was_never_driven_has_no_status(rlhf, job_dir):
    code, _, err = rlhf("status", str(job_dir))
    assert code == 5
    assert "none has left a status there" in err


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("verb", ["status", "pause", "resume", "checkpoint"])
def test_asking_a_driver_loads_neither_torch_nor_ray_nor_pydantic(job_dir, verb):
    program = (
        "import sys; from rlhf_cluster.cli.main import run; code = run(sys.argv[1:]); print(*sys.modules); exit(code)"
    )
    child = subprocess.run(
        [sys.executable, "-c", program, verb, str(job_dir)], capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"torch", "ray", "vllm", "transformers", "pydantic"} & set(child.stdout.split())
