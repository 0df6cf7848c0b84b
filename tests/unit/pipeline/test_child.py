"""A stage's process: its exit code comes back, Ctrl-C reaches it once, and a killed parent leaves none."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

BOUND_S = 60
PARENT = """
import functools, json, os, signal, sys, time
from rlhf_cluster.cli.main import run
from rlhf_cluster.pipeline.child import run_in_child

def wait_for_ctrl_c():
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    print("begun", os.getpid(), flush=True)
    while not heard: time.sleep(0.02)
    time.sleep(0.3)
    return 129 + len(heard)

def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
"""


def script(code: str) -> list[str]:
    return [sys.executable, "-c", f"{PARENT}\n{code}"]


@pytest.fixture
def parent():
    code = "sys.exit(run_in_child(wait_for_ctrl_c))"
    process = subprocess.Popen(script(code), stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def begun(parent: subprocess.Popen[str]) -> int:
    """Process id of the child."""
    assert parent.stdout is not None
    words = parent.stdout.readline().split()
    assert words[0] == "begun"
    return int(words[1])


def result_of(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(script(code), capture_output=True, text=True, timeout=BOUND_S, check=True)


def test_ctrl_c_is_passed_on_once_and_the_exit_code_comes_back(parent):
    begun(parent)
    time.sleep(0.2)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(BOUND_S) == 130


def test_a_killed_parent_leaves_no_child(parent):
    child = psutil.Process(begun(parent))
    parent.kill()
    parent.wait()
    psutil.wait_procs([child], timeout=BOUND_S)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_directory_without_a_job_is_the_exit_code_of_rlhf_resume_and_its_output_goes_where_it_is_sent(tmp_path):
    code = f"""
before = handlers()
told = [run_in_child(functools.partial(run, ["resume", {str(tmp_path / "nowhere")!r}]), stdout=sys.stderr)]
told.append(run_in_child(lambda: print("said by the child") or 0, stdout=sys.stderr))
print(json.dumps([told, before == handlers()]))
"""
    result = result_of(code)
    assert json.loads(result.stdout) == [[3, 0], True]
    assert "nowhere" in result.stderr
    assert "said by the child" in result.stderr


def test_what_a_stage_does_to_its_process_is_unknown_to_the_next():
    code = """
def spoil():
    import torch
    torch.manual_seed(7), torch.set_num_threads(1)
    os.environ["SPOILT"] = "1"
    sys.modules["spoilt"] = sys
    return 0
def look():
    return 4 if "SPOILT" in os.environ or "spoilt" in sys.modules else 0
print([run_in_child(spoil), run_in_child(look)])
"""
    assert result_of(code).stdout.strip() == "[0, 0]"


def test_a_stage_that_dies_of_a_signal_is_told_by_its_number():
    assert result_of("print(run_in_child(lambda: os.kill(os.getpid(), signal.SIGKILL)))").stdout.strip() == "-9"


def test_neither_vllm_nor_ray_is_loaded_before_a_stage_begins():
    code = """
def look():
    print(json.dumps([name in sys.modules for name in ("torch", "transformers", "vllm", "ray")]))
    return 0
sys.exit(run_in_child(look))
"""
    assert json.loads(result_of(code).stdout) == [True, True, False, False]
