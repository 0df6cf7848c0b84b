from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from rlhf_cluster.cli.interrupt import run_stoppable
from rlhf_cluster.errors import Interrupted


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_work_that_is_not_interrupted_returns_its_result():
    async def work(stop: asyncio.Event) -> str:
        return "done"

    assert asyncio.run(run_stoppable(work, tell=lambda line: None)) == "done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_says_so(number):
    told: list[str] = []

    async def work(stop: asyncio.Event) -> str:
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.wait(), timeout=10)
        return "stopped after the step"

    assert asyncio.run(run_stoppable(work, tell=told.append)) == "stopped after the step"
    assert told == ["stopping after the current step; press Ctrl-C again to abort at once"]


def test_the_second_signal_aborts_work_that_does_not_stop():
    cleaned_up = []

    async def work(stop: asyncio.Event) -> None:
        try:
            press_ctrl_c()
            await asyncio.wait_for(stop.wait(), timeout=10)
            press_ctrl_c()
            await asyncio.sleep(60)
        finally:
            cleaned_up.append(True)

    with pytest.raises(Interrupted, match="aborted"):
        asyncio.run(run_stoppable(work, tell=lambda line: None))
    assert cleaned_up == [True]


def test_sigterm_takes_back_the_alarm_by_which_ray_would_abort_the_step_under_way():
    async def work(stop: asyncio.Event) -> int:
        signal.alarm(60)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), timeout=10)
        return signal.alarm(0)

    assert asyncio.run(run_stoppable(work, tell=lambda line: None)) == 0


def test_a_driver_on_ray_outlives_sigterm_for_as_long_as_its_step_takes():
    """With Ray's own handler, in a process of its own: the alarm comes after three seconds."""
    script = (
        "import asyncio, os, signal, ray\n"
        "from rlhf_cluster.cli.interrupt import run_stoppable\n"
        "async def work(stop):\n"
        "    await asyncio.to_thread(ray.init, num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    await asyncio.wait_for(stop.wait(), timeout=10)\n"
        "    await asyncio.sleep(4)\n"
        "    ray.shutdown()\n"
        "    print('saved')\n"
        "asyncio.run(run_stoppable(work, tell=lambda line: None))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, done.stdout.strip()) == (0, "saved"), done.stderr


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_sigterm_is_one_wish_however_often_it_comes(first):
    """Ray signals every process of a job, and the relay passes its own signal on: it reaches the driver twice."""

    async def work(stop: asyncio.Event) -> str:
        os.kill(os.getpid(), first)
        await asyncio.wait_for(stop.wait(), timeout=10)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0)
        return "stopped after the step"

    told: list[str] = []
    assert asyncio.run(run_stoppable(work, tell=told.append)) == "stopped after the step"
    assert len(told) == 1


def test_sigterm_that_comes_after_the_end_changes_no_exit_code():
    """The relay's, on a busy machine, when Ray's has stopped the driver already."""
    script = (
        "import asyncio, os, signal, sys\n"
        "from rlhf_cluster.cli.interrupt import run_stoppable\n"
        "async def work(stop):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    await asyncio.wait_for(stop.wait(), timeout=10)\n"
        "asyncio.run(run_stoppable(work, tell=lambda line: None))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.exit(130)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 130, done.stderr


def test_errors_of_the_work_travel_unchanged():
    async def work(stop: asyncio.Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_stoppable(work, tell=lambda line: None))


def test_signals_have_their_usual_effect_afterwards():
    async def work(stop: asyncio.Event) -> None:
        pass

    asyncio.run(run_stoppable(work, tell=lambda line: None))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
