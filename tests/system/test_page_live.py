"""A person at the page of a real `rlhf up`: logs in, submits a job, sees it learn, scales it, and ends it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .page_stage import browser, needs_page, person, wait_until

pytestmark = [needs_page, pytest.mark.slow, pytest.mark.timeout(600)]
BOUND_S = 150.0
DIFFERENT = """
rollout.engine.type=transformers
train.prompts_per_step=4
evaluation.num_prompts=2
algorithm.keep_zero_variance=true
"""
SHOTS = os.environ.get("RLHF_SHOTS")


def rlhf(home: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "rlhf_cluster.cli", *words, "--data-dir", str(home / "service"), "-o", "json"],
        env={**os.environ, "RLHF_CLUSTER_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=2 * BOUND_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def login_url(word_world_home: Path) -> Iterator[str]:
    yield rlhf(word_world_home, "up")["login_url"]
    rlhf(word_world_home, "down")


def test_a_job_is_submitted_watched_scaled_to_three_and_back_and_cancelled_in_the_page(login_url, tmp_path):
    shots = Path(SHOTS) if SHOTS else tmp_path
    with browser() as chromium, person(chromium, login_url, width=1280) as page:
        submit(page)
        page.get_by_role("link", name="Charts").click()
        page.get_by_role("img", name=re.compile(r"^Reward over ([3-9]|\d\d) steps")).wait_for(timeout=BOUND_S * 1000)
        page.get_by_role("link", name="Workers", exact=True).first.click()
        step_to(page, 3, "One more")
        wait_until(lambda: serving(page) == 3, bound_s=BOUND_S, told="three workers do not come to serve")
        page.screenshot(path=shots / "live-workers.png")
        page.get_by_role("link", name="Charts").click()
        page.get_by_role("img", name=re.compile(r"^Reward over [3-9]\d steps")).wait_for(timeout=BOUND_S * 1000)
        page.screenshot(path=shots / "live-charts.png")
        page.get_by_role("link", name="Overview").click()
        page.get_by_text("Over the last").first.wait_for()
        page.screenshot(path=shots / "live-overview.png")
        page.get_by_role("link", name="Workers", exact=True).first.click()
        step_to(page, 1, "One less")
        wait_until(lambda: rows(page) == 1, bound_s=BOUND_S, told="two workers do not leave")
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("button", name="Cancel the job").click()
        page.get_by_text("Cancelled", exact=True).first.wait_for(timeout=BOUND_S * 1000)
        page.get_by_role("link", name="Timeline").click()
        page.get_by_text(re.compile("asked for 3 rollout workers", re.IGNORECASE)).first.wait_for()
        page.screenshot(path=shots / "live-timeline.png")
        assert page.complaints == []


def submit(page: Any) -> None:
    page.get_by_role("link", name="New job").click()
    page.get_by_role("button", name=re.compile("^word-world")).click()
    page.get_by_label("Steps", exact=False).first.fill("400")
    page.get_by_label("Anything else", exact=False).fill(DIFFERENT.strip())
    page.get_by_text("good", exact=True).wait_for()
    page.get_by_role("button", name="Submit the job").click()
    page.get_by_role("heading", name="word-world").wait_for()


def step_to(page: Any, wanted: int, which: str) -> None:
    stepper = page.get_by_role("group", name="Number of rollout workers")
    for _ in range(2):
        stepper.get_by_role("button", name=which).click()
    page.get_by_text(re.compile(f"^Asked for {wanted} rollout")).wait_for()


def rows(page: Any) -> int:
    return page.get_by_role("region", name="Rollout workers", exact=True).locator("tbody tr").count()


def serving(page: Any) -> int:
    table = page.get_by_role("region", name="Rollout workers", exact=True)
    return table.locator("tbody tr").filter(has_text=re.compile("serving|adopting")).count()
