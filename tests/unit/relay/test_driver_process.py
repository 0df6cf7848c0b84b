"""Real children: how they are stopped, how they end, and what is told of that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rlhf_cluster.cli import failure
from rlhf_cluster.relay import driver_process
from rlhf_cluster.relay.driver_process import DriverEnd, DriverProcess, environment

BOUND_S = 60.0
READY = "print('ready'); "
IGNORES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "time.sleep(600)"


def run(tmp_path: Path, code: str, *, stop: int = 0, grace_s: float = 0.05) -> DriverEnd:
    """Python that runs `code`; once it is ready it is asked to stop so many times."""

    async def whole() -> DriverEnd:
        driver = await DriverProcess.start(tmp_path, command=(sys.executable, "-c", code))
        log = tmp_path / "logs" / "driver.log"
        async with asyncio.timeout(BOUND_S):
            while stop and "ready" not in log.read_text():  # noqa: ASYNC110 - a file is waited for
                await asyncio.sleep(0.02)
            for _ in range(stop):
                driver.stop(grace_s=grace_s)
            return await driver.wait()

    return asyncio.run(whole())


def test_what_a_child_printed_last_is_told_with_its_exit_code(tmp_path):
    end = run(tmp_path, "import sys; print('one'); print('Error: no such model', file=sys.stderr); sys.exit(2)")
    report = end.report(said={})
    assert (report.outcome, report.exit_code, report.may_be_retried) == ("failed", 2, False)
    assert report.message == "no such model"
    assert report.last_lines == ["one", "Error: no such model"]


def test_a_child_that_was_killed_is_told_with_the_signal(tmp_path):
    report = run(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)").report(said={})
    assert (report.outcome, report.exit_code) == ("failed", -signal.SIGKILL)
    assert report.message == "the driver was ended by SIGKILL (signal 9)"
    assert report.may_be_retried


def test_a_child_that_does_not_stop_is_ended_after_the_grace(tmp_path):
    end = run(tmp_path, IGNORES, stop=1)
    assert (end.code, end.was_asked, end.report(said={}).outcome) == (-signal.SIGKILL, True, "interrupted")


def test_a_child_that_is_asked_twice_hears_it_once_and_has_its_grace(tmp_path):
    counts = (
        "import signal, sys, time; heard = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: heard.append(1)); print('ready', flush=True)\n"
        "while not heard: time.sleep(0.01)\n"
        "time.sleep(0.2); sys.exit(100 + len(heard))\n"
    )
    assert run(tmp_path, counts, stop=2, grace_s=600.0).code == 101


def test_the_jobs_own_last_word_counts_before_the_exit_code(tmp_path):
    end = run(tmp_path, "import sys; sys.exit(1)")
    report = end.report(said={"outcome": "succeeded", "message": "9 steps done"})
    assert (report.outcome, report.message, report.exit_code) == ("succeeded", "9 steps done", 1)


@pytest.mark.parametrize(
    ("code", "outcome", "may_be_retried"),
    [
        (failure.DONE, "succeeded", True),
        (failure.JOB_FAILED, "failed", True),
        (failure.USAGE, "failed", False),
        (failure.NOT_FOUND, "failed", False),
        (failure.UNAVAILABLE, "failed", True),
        (failure.BY_GUARD, "failed", False),
        (failure.INTERRUPTED, "interrupted", True),
        (-signal.SIGSEGV, "failed", True),
    ],
)
def test_only_what_is_wrong_with_the_job_itself_is_not_retried(code, outcome, may_be_retried):
    report = DriverEnd(code=code, was_asked=False, last_lines=()).report(said={})
    assert (report.outcome, report.may_be_retried) == (outcome, may_be_retried)


def test_the_exit_codes_are_those_of_the_command_line():
    names = ("DONE", "USAGE", "NOT_FOUND", "BY_GUARD", "INTERRUPTED")
    assert [getattr(driver_process, name) for name in names] == [getattr(failure, name) for name in names]


def test_a_child_dies_when_its_parent_is_killed(tmp_path):
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'rlhf_cluster.tied', str(os.getpid()),"
        " sys.executable, '-c', \"import time; print('ready', flush=True); time.sleep(600)\"])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    told = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    [child_id] = told - {"ready"}
    child = psutil.Process(int(child_id))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([child], timeout=BOUND_S)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_child_whose_parent_died_before_it_was_tied_does_not_begin():
    done = subprocess.run(
        [sys.executable, "-m", "rlhf_cluster.tied", "1", sys.executable, "-c", "print('begun')"],
        capture_output=True, timeout=BOUND_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_the_attempts_token_reaches_neither_the_driver_nor_its_actors():
    ray_job = {"runtime_env": {"env_vars": {"RLHF_ATTEMPT_TOKEN": "secret", "MINE": "1"}}, "metadata": {"a": "b"}}
    given = {"RLHF_ATTEMPT_TOKEN": "secret", "RLHF_SERVICE_URL": "http://x", "MINE": "1",
             "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(ray_job)}  # fmt: skip
    made = environment(given, code_dir=None)
    assert "secret" not in str(made)
    assert made["MINE"] == "1"
    assert json.loads(made["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"] == {"a": "b"}


def test_the_jobs_own_code_comes_first_on_the_path():
    made = environment({"PYTHONPATH": "/other"}, code_dir=Path("/code"))
    assert made["PYTHONPATH"] == os.pathsep.join(("/code", "/other"))
