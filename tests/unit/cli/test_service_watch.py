"""What is followed: it goes on until the job is over, survives the service, and Ctrl-C ends it and not the job."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

RLHF = (sys.executable, "-m", "rlhf_cluster.cli")


class Following:
    """A command line in a process of its own, whose output is read as it comes."""

    def __init__(self, *arguments: str, tty: bool = False) -> None:
        self._own, theirs = pty.openpty() if tty else os.pipe()
        env = os.environ | {"COLUMNS": "120", "TERM": "xterm", "PYTHONUNBUFFERED": "1"}
        self.child = subprocess.Popen([*RLHF, *arguments], stdout=theirs, stderr=subprocess.STDOUT, env=env)
        os.close(theirs)
        self.out = ""

    def until(self, pattern: str, *, meanwhile: Callable[[], None] = lambda: None) -> Following:
        deadline_s = time.monotonic() + 90
        while not re.search(pattern, self.out):
            assert time.monotonic() < deadline_s, self.out
            meanwhile()
            if not self._read():
                raise AssertionError(f"{pattern!r} is not in {self.out}")
        return self

    def _read(self) -> bool:
        if not select.select([self._own], [], [], 1)[0]:
            return True
        try:
            piece = os.read(self._own, 65536)
        except OSError:  # a terminal whose other side is closed
            return False
        self.out += piece.decode("utf-8", "replace")
        return bool(piece)

    def end(self) -> tuple[int, str]:
        """Exit code and all that it has printed."""
        while self._read():
            pass
        os.close(self._own)
        return self.child.wait(60), self.out

    def press_ctrl_c(self) -> Following:
        self.child.send_signal(signal.SIGINT)
        return self


@pytest.fixture
def job_id(service, request):
    return service.run(service.submit(request.node.name[:100]))


@pytest.fixture
def warm_up(service, job_id):
    """Something happens. Where it is told again and again: what happened before the watching began is not shown."""
    return lambda: service.tell(job_id, [{"event": "Phase", "time_s": 1.0, "step": 0, "name": "warming up"}])


def test_watching_prints_what_happens_and_ends_with_the_job(service, job_id, warm_up):
    watching = Following("watch", job_id).until("the job is running, at step 4 of 20")
    warm_up()
    watching.until("warming up")
    service.tell_steps(job_id, [5])
    watching.until("step 5: reward 0.5")
    service.end(job_id)
    code, out = watching.end()
    assert code == 0
    assert out.splitlines()[-1] == f"{job_id} succeeded, at step 5 of 20"


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_watching_a_job_that_is_over_tells_how_it_ended(rlhf, service, state, code):
    job_id = service.run(service.submit(f"over-{state}"))
    service.end(job_id, state, "as it was")
    assert rlhf("watch", job_id) == (code, f"{job_id} {state}: as it was, at step 4 of 20\n", "")


def test_events_as_json_one_a_line(service, job_id, warm_up):
    watching = Following("watch", job_id, "-o", "jsonl").until("warming up", meanwhile=warm_up)
    service.end(job_id, "failed")
    code, out = watching.end()
    events = [json.loads(line) for line in out.splitlines()]
    assert (code, events[0]["text"], events[-1]["kind"]) == (1, "warming up", "JobOver")


@pytest.mark.parametrize(("arguments", "again"), [(["watch"], "rlhf watch"), (["logs", "-f"], "rlhf logs -f")])
def test_ctrl_c_detaches_says_how_to_come_back_and_leaves_the_job_alone(service, job_id, arguments, again):
    service.write(job_id, "driver", "a line")
    following = Following(*arguments, job_id).until("a line|the job is running")
    code, out = following.press_ctrl_c().end()
    assert code == 130
    assert out.splitlines()[-1].startswith("detached: the job goes on; `")
    assert f"`{again} {job_id}`" in out
    assert "Error" not in out


def test_submitting_and_waiting_detaches_as_well(service):
    waiting = Following("submit", "word-world", "--name", "waited-for", "--wait").until("submitted job_\\w+")
    job_id = re.search("submitted (job_\\w+)", waiting.out)[1]
    waiting.until("the job is queued, at step 0")
    code, out = waiting.press_ctrl_c().end()
    assert (code, f"`rlhf watch {job_id}` shows it again" in out) == (130, True)


def test_waiting_for_a_job_that_fails_is_exit_code_1(service):
    waiting = Following("submit", "word-world", "--wait", "-o", "json").until("submitted job_\\w+")
    job_id = re.search("submitted (job_\\w+)", waiting.out)[1]
    service.end(job_id, "failed", "no such node")
    code, out = waiting.end()
    assert code == 1
    assert json.loads(out[out.index("{") :])["message"] == "no such node"


def test_logs_are_followed_line_by_line_until_the_job_is_over(service, job_id):
    service.write(job_id, "driver", "one", "two")
    following = Following("logs", "-f", job_id, "--tail", "1").until("driver  two\n")
    service.write(job_id, "driver", "three", offset=10)
    following.until("driver  three\n")
    service.write(job_id, "driver", "four", offset=20)
    service.end(job_id)
    assert following.end() == (0, "driver  two\ndriver  three\ndriver  four\n")


def test_a_service_that_is_started_again_ends_no_following_and_repeats_no_line(service, job_id):
    service.write(job_id, "driver", "one")
    following = Following("logs", "-f", job_id).until("one\n")
    service.stop()
    service.start()
    service.write(job_id, "driver", "two", offset=10)
    following.until("two\n")
    service.end(job_id)
    assert following.end() == (0, "driver  one\ndriver  two\n")


def test_on_a_terminal_a_panel_shows_step_reward_and_workers(service, job_id):
    service.tell_steps(job_id, range(1, 6))
    watching = Following("watch", job_id, tty=True).until("step 5/20")
    watching.until("no node has 1 CPU free")
    service.tell_steps(job_id, [6])
    watching.until("step 6/20")
    threading.Timer(0.1, service.end, [job_id]).start()
    code, out = watching.end()
    assert code == 0
    assert f"{job_id} succeeded, at step 6 of 20" in out


def test_the_status_is_watched_until_the_job_is_over(service, job_id):
    watching = Following("status", job_id, "--watch").until("step 4 of 20")
    service.end(job_id)
    code, out = watching.end()
    assert (code, "succeeded, step 4 of 20" in out) == (0, True)
