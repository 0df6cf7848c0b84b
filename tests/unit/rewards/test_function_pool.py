"""Reward functions that fail in every way, in real processes: each failure is told, and the rest goes on."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from rlhf_cluster.errors import ConfigError
from rlhf_cluster.rewards.pool import FunctionPool
from rlhf_cluster.rewards.sample import Failure, RewardSample
from rlhf_cluster.rewards.settings import FunctionReward

LIMIT_S = 0.6  # what a trivial function certainly keeps on a busy machine


@pytest.fixture(autouse=True)
def foreign_rewards_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def samples(*completions: str, **item) -> list[RewardSample]:
    return [
        RewardSample(prompt="", completion=text, finish_reason="stop", num_tokens=1, item=item) for text in completions
    ]


def score(*groups: list[RewardSample], function: str = "by_completion", num_processes: int = 1, **args):
    """The outcomes of each group, one group after another in one pool."""
    reward = FunctionReward(function=f"foreign_rewards:{function}", name="it", time_limit_s=LIMIT_S, args=args)

    async def run():
        pool = FunctionPool([reward], num_processes=num_processes, max_process_memory_mib=1024)
        try:
            await pool.start()
            return [await pool.score("it", group) for group in groups]
        finally:
            await pool.close()

    return asyncio.run(run())


def kinds(outcomes) -> list[object]:
    return [outcome.kind if isinstance(outcome, Failure) else outcome for outcome in outcomes]


def test_what_a_function_raises_or_returns_is_told_for_each_completion():
    completions = ["1", "raise", "raise strangely", "exit", "away", "nan", "infinite", "string", "none", "list", "true"]
    (outcomes,) = score(samples(*completions))
    assert kinds(outcomes) == [1.0, *["raised"] * 3, "unavailable", *["not_a_number"] * 5, 1.0]
    assert outcomes[1].message == "ValueError: no such thing"
    assert "SurprisingError" in outcomes[2].message
    assert outcomes[3].message == "SystemExit: 3"
    assert "'1.0' (str)" in outcomes[7].message


def test_a_process_that_dies_costs_only_the_completion_that_killed_it():
    first, second, after = score(samples("1", "die", "3"), samples("crash"), samples("4"))
    assert kinds(first) == [1.0, "died", 3.0]
    assert "exit code 1" in first[1].message
    assert kinds(second) == ["died"]
    assert "-11" in second[0].message
    assert after == [4.0]


def test_a_hang_costs_only_the_completion_that_hangs():
    first, quiet, after = score(samples("1", "hang", "3"), samples("die quietly"), samples("4"))
    assert kinds(first) == [1.0, "timed_out", 3.0]
    assert "0.6 s" in first[1].message
    assert kinds(quiet) == ["timed_out"]
    assert after == [4.0]


def test_a_hang_that_ignores_signals_is_ended_by_force():
    hang, after = score(samples("hang and ignore signals"), samples("4"))
    assert kinds(hang) == ["timed_out"]
    assert after == [4.0]


def test_a_function_that_takes_too_much_memory_gets_a_memory_error():
    (outcomes,) = score(samples("1", "hoard", "3"))
    assert kinds(outcomes) == [1.0, "raised", 3.0]
    assert "MemoryError" in outcomes[1].message


def test_async_functions_of_a_group_wait_together():
    (outcomes,) = score(samples(*map(str, range(50)), "x"), function="slow_judge", wait_s=0.1)
    assert outcomes[:50] == [float(i) for i in range(50)]
    assert kinds(outcomes[50:]) == ["raised"]


def test_an_async_function_that_hangs_times_out():
    assert kinds(score(samples("1"), function="slow_judge", wait_s=60)[0]) == ["timed_out"]


def test_a_class_is_made_once_and_scores():
    assert score(samples("2", "3"), function="Scaled", factor=10.0) == [[20.0, 30.0]]


def test_a_row_that_cannot_travel_fails_without_harm():
    failed, after = score(samples("1", lock=threading.Lock()), samples("2"))
    assert kinds(failed) == ["raised"]
    assert after == [2.0]


def test_functions_that_do_not_load_stop_the_start_with_their_names():
    rewards = [FunctionReward(function="absent_package:judge"), FunctionReward(function="foreign_rewards:absent")]

    async def run():
        pool = FunctionPool(rewards)
        try:
            await pool.start()
        finally:
            await pool.close()

    with pytest.raises(ConfigError, match=r"absent_package:judge.*foreign_rewards:absent"):
        asyncio.run(run())


def signal_processes(number: int) -> None:
    for child in multiprocessing.active_children():
        os.kill(child.pid, number)


def test_a_pool_that_gives_no_sign_of_life_is_replaced():
    async def run():
        reward = FunctionReward(function="foreign_rewards:by_completion", time_limit_s=LIMIT_S)
        pool = FunctionPool([reward], start_limit_s=10.0)
        try:
            await pool.start()
            pool._silence_limit_s = 0.6
            signal_processes(signal.SIGSTOP)
            return await pool.score("by_completion", samples("1", "2"))
        finally:
            await pool.close()

    assert asyncio.run(run()) == [1.0, 2.0]


def test_groups_spread_over_the_processes_and_survive_a_pool_whose_idle_processes_were_killed():
    async def run():
        pool = FunctionPool([FunctionReward(function="foreign_rewards:by_completion")], num_processes=2)
        try:
            await pool.start()
            signal_processes(signal.SIGKILL)
            groups = [pool.score("by_completion", samples(str(i), str(i))) for i in range(20)]
            return await asyncio.gather(*groups)
        finally:
            await pool.close()

    assert asyncio.run(run()) == [[float(i)] * 2 for i in range(20)]


def test_a_cancelled_score_ends_the_function_and_frees_the_process():
    async def run():
        pool = FunctionPool([FunctionReward(function="foreign_rewards:by_completion", time_limit_s=60)])
        try:
            await pool.start()
            hanging = asyncio.create_task(pool.score("by_completion", samples("hang")))
            await asyncio.sleep(0.2)
            hanging.cancel()
            async with asyncio.timeout(20):
                return await pool.score("by_completion", samples("1"))
        finally:
            await pool.close()

    assert asyncio.run(run()) == [1.0]


SERVER_THAT_IS_KILLED = """
import asyncio, os, signal, sys, psutil
sys.path.insert(0, sys.argv[1])
from rlhf_cluster.rewards.pool import FunctionPool
from rlhf_cluster.rewards.sample import RewardSample
from rlhf_cluster.rewards.settings import FunctionReward

async def main():
    pool = FunctionPool([FunctionReward(function="foreign_rewards:by_completion", time_limit_s=60)])
    await pool.start()
    hang = RewardSample(prompt="", completion=sys.argv[2], finish_reason="stop", num_tokens=1)
    task = asyncio.create_task(pool.score("by_completion", [hang]))
    await asyncio.sleep(0.3)
    print(*[child.pid for child in psutil.Process().children()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["hang", "hang and hold the GIL"])
def test_a_function_that_hangs_does_not_outlive_a_killed_server(tmp_path, how):
    script = tmp_path / "server.py"
    script.write_text(SERVER_THAT_IS_KILLED)
    # A file takes the output: a child that lives on would hold a pipe open.
    with (tmp_path / "out").open("w") as out:
        command = [sys.executable, str(script), str(Path(__file__).parent), how]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, stdout=out, env=environment, timeout=60, check=False)
    process_ids = [int(word) for word in (tmp_path / "out").read_text().split()]
    assert process_ids
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in process_ids if psutil.pid_exists(pid)], timeout=10)
    assert not alive
