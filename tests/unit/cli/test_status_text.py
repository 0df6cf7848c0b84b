"""What `rlhf status` shows, compared as text."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import psutil

from rlhf_cluster.cli.status_text import render
from rlhf_cluster.driver.claim import DriverView
from rlhf_cluster.records.members import JobView, MemberView, PoolView

JOB_DIR = Path("runs/words-1")
ALIVE = DriverView(
    epoch=2,
    process_id=os.getpid(),
    host=socket.gethostname(),
    process_started_s=psutil.Process().create_time(),
    claimed_s=900.0,
)
GONE = replace(ALIVE, process_id=123, ended_s=950.0)
WORKERS = (
    MemberView(
        role="rollout worker",
        worker_id="rollout-0",
        state="serving",
        version=12,
        num_in_flight=4,
        tokens_in_flight=310,
        tokens_per_s=812.4,
        busy_share=0.97,
        rss_bytes=3 * 2**29,
    ),
    MemberView(role="rollout worker", worker_id="rollout-2", state="pending", reason="no node has 4 free CPUs"),
)
VIEW = JobView(
    time_s=1000.0,
    epoch=2,
    job_name="words",
    state="running",
    phase="updating",
    step=12,
    num_steps=60,
    num_in_flight=4,
    num_complete=3,
    waiting_for="1 more group of 4",
    bottleneck="the learner waited for rollouts 61% of the last minute",
    pools=(
        PoolView(
            role="rollout worker", desired=2, num_restarts=1, last_error="rollout-1 died: signal 9", members=WORKERS
        ),
        PoolView(role="reward server", desired=0, num_restarts=0, last_error="", members=()),
    ),
)


def shown(view: JobView | None = VIEW, *, driver: DriverView | None = ALIVE, now_s: float = 1000.4) -> str:
    return render(view, driver=driver, job_dir=JOB_DIR, now_s=now_s)


def test_a_running_job():
    assert (
        shown()
        == f"""\
job         words: running, step 12 of 60, updating
driver      number 2, pid {os.getpid()} on {socket.gethostname()}
rollouts    4 in flight, 3 complete
waits for   1 more group of 4
bottleneck  the learner waited for rollouts 61% of the last minute
seen        0 s ago

role            at work  restarts  last error
rollout worker  1 of 2   1         rollout-1 died: signal 9
reward server   0 of 0   0

worker     state    version  in flight  tokens  tokens/s  busy  memory   reason
rollout-0  serving  12       4          310     812       97%   1.5 GiB
rollout-2  pending           0          0       0         0%             no node has 4 free CPUs"""
    )


def with_pool(**changes: object) -> JobView:
    return replace(VIEW, pools=(replace(VIEW.pools[0], **changes), VIEW.pools[1]))


def test_a_policy_in_power_says_its_bounds_and_its_last_sentence():
    auto = {"mode": "auto", "min_workers": 1, "max_workers": 8}
    text = shown(with_pool(**auto, reason="stay at 2: 1 worker is still coming or going"))
    assert "\npolicy      1 to 8 rollout workers: stay at 2: 1 worker is still coming or going\n" in text
    assert "\npolicy      1 to 8 rollout workers\n" in shown(with_pool(**auto))


def test_without_a_policy_its_advice_is_shown():
    text = shown(with_pool(reason="the learner can take more", recommended=5))
    assert "\nadvice      5 instead of 2 rollout workers: the learner can take more\n" in text
    assert "\nadvice      2 is the right number of rollout workers\n" in shown(with_pool(reason="so", recommended=2))


def test_a_job_whose_driver_is_gone_says_how_it_goes_on():
    text = shown(driver=GONE, now_s=8200.0)
    assert "driver      the driver of this job (pid 123) is gone; `rlhf resume runs/words-1` goes on\n" in text
    assert "seen        2.0 h ago\n" in text


def test_a_job_that_ended_says_so():
    assert "driver      none; the job is done\n" in shown(replace(VIEW, state="succeeded"), driver=GONE)
    assert "driver      none; `rlhf resume runs/words-1` goes on\n" in shown(replace(VIEW, state="failed"), driver=GONE)


def test_a_driver_that_runs_and_tells_nothing_is_remarked_on():
    assert "seen        43 s ago, and nothing since: its driver runs, but is slow or stuck\n" in shown(now_s=1043.0)


def test_a_driver_on_another_host_cannot_be_judged_from_here():
    text = shown(driver=replace(ALIVE, process_id=7, host="node-b"), now_s=1043.0)
    assert "driver      number 2, pid 7 on node-b; whether it still runs cannot be seen from here\n" in text
    assert "seen        43 s ago\n" in text


def test_a_driver_that_took_over_and_has_told_nothing_yet():
    assert f"number 3, pid {os.getpid()}" in shown(driver=replace(ALIVE, epoch=3))
    assert "it has not told its status yet" in shown(driver=replace(ALIVE, epoch=3))
    assert shown(None).startswith("runs/words-1: number 2, pid ")


def test_words_of_others_cannot_steer_the_terminal():
    assert "\x1b" not in shown(replace(VIEW, waiting_for="\x1b[2J", phase="a\x1b]0;b", job_name="\x1b[31m"))


def test_a_clock_that_is_behind_is_no_negative_age():
    assert "seen        0 s ago" in shown(now_s=990.0)
