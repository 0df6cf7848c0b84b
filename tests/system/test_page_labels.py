"""Pairs are judged on the page, in a real browser before the real service: by keys alone, blind, taken back, counted,
exported; and what a model wrote is never more than text."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rlhf_cluster.flow.labelling import on_the_left

from .page_stage import BOUND_S, Seeded, browser, needs_page, person, seeded, wait_until

pytestmark = [needs_page, pytest.mark.slow]
WRITTEN = '<img src="x" onerror="document.title = 1"> & <b>bold</b>\n  indented'
KEY_OF = {"a": {"a": "1", "b": "2"}, "b": {"a": "2", "b": "1"}}
"""By what stands left, the key of a completion."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    with seeded(tmp_path_factory.mktemp("seeded")) as service:
        yield service


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as chromium:
        yield chromium


@pytest.fixture
def rlhf(service: Seeded) -> Callable[..., str]:
    def call(*arguments: str) -> str:
        environment = {**os.environ, "RLHF_SERVER": service.url, "RLHF_TOKEN": service.token}
        words = [sys.executable, "-m", "rlhf_cluster.cli", "label", *arguments]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=BOUND_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture
def add(service: Seeded) -> Callable[[str, int], str]:
    """Makes a set of so many pairs."""

    def make(name: str, num_pairs: int) -> str:
        return service.post("/label-sets", {"name": name, "pairs": pairs(num_pairs)})["name"]

    return make


def pairs(num: int) -> list[dict[str, str]]:
    return [
        {"prompt": f"question {number}", "completion_a": f"an a{number}", "completion_b": f"a b{number}\n{WRITTEN}"}
        for number in range(num)
    ]


def left(page: Any, number: int) -> str:
    """Which completion of the pair stands left, once that pair is there."""
    page.get_by_role("article", name=f"Pair {number}").and_(page.locator("[aria-busy=false]")).wait_for()
    shown = page.get_by_role("region", name="Answer 1, text").inner_text()
    return "a" if shown.startswith("an a") else "b"


def press(page: Any, number: int, choice: str) -> None:
    page.keyboard.press(KEY_OF[left(page, number)].get(choice, choice))


def test_pairs_are_judged_by_keys_alone_and_what_was_said_is_counted_and_exported(service, chromium, rlhf, tmp_path):
    name, path = "by-keys", tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs(5)))
    rlhf("add", name, str(path), "--seed", "4")
    with person(chromium, f"{service.url}/login#token={service.token}") as page:
        page.goto(f"{service.url}/label")
        page.get_by_role("link", name=name).focus()
        page.keyboard.press("Enter")
        for number, choice in enumerate(("a", "b", "0", "s")):
            assert left(page, number) == on_the_left(seed=4, number=number, labeler="ada")
            press(page, number, choice)
        left(page, 4)
        for number in (3, 2):  # the skip, then the tie
            page.keyboard.press("u")
            left(page, number)
        page.get_by_text("2 judged by you, 3 left").wait_for()
        page.reload()
        for number, choice in ((2, "b"), (3, "0"), (4, "a")):
            press(page, number, choice)
        page.get_by_text("That was all").wait_for()
        page.get_by_role("link", name="Statistics").click()
        page.get_by_role("row", name=re.compile("^ada 5 1 0 . of 4")).wait_for()
        page.get_by_text("2 undone").wait_for()
        assert page.complaints == []
    lines = [json.loads(line) for line in rlhf("export", name).splitlines()]
    assert [line["label"] for line in lines] == ["a", "b", "b", "tie", "a"]
    assert [line["chosen"][:4].strip() for line in lines] == ["an a", "a b1", "a b2", "an a", "an a"]
    told = service.get(f"/label-sets/{name}/statistics")
    assert (told["num_labels"], told["num_undone"], told["tie_rate"]) == (5, 2, 0.2)
    assert 0 < told["median_s"] < BOUND_S


def test_what_a_model_wrote_is_shown_as_the_text_it_is(service, chromium, add):
    name = add("markup", 1)
    with person(chromium, f"{service.url}/login#token={service.token}") as page:
        page.goto(f"{service.url}/label/{name}")
        side = "1" if left(page, 0) == "b" else "2"
        shown = page.get_by_role("region", name=f"Answer {side}, text")
        assert shown.inner_text() == f"a b0\n{WRITTEN}"
        assert page.locator("article img, article b").count() == 0
        assert page.title().startswith("Label markup")


def test_buttons_do_what_keys_do_and_keys_can_be_switched_off(service, chromium, add):
    name = add("buttons", 3)
    with person(chromium, f"{service.url}/login#token={service.token}", width=420) as page:
        page.goto(f"{service.url}/label/{name}")
        left(page, 0)
        page.get_by_role("button", name="Undo").and_(page.locator("[disabled]")).wait_for()
        page.get_by_role("button", name="Answer 2").click()
        left(page, 1)
        page.get_by_role("checkbox", name="Keys").uncheck()
        page.keyboard.press("1")
        page.get_by_role("button", name="Tie").click()
        left(page, 2)
        page.get_by_role("button", name="Undo").click()
        left(page, 1)
        assert service.get(f"/label-sets/{name}")["num_labels"] == 1
        page.reload()
        assert not page.get_by_role("checkbox", name="Keys").is_checked()


def test_two_people_have_different_pairs_before_them_and_whoever_comes_late_is_told(service, chromium, add):
    name = add("two", 1)
    with person(chromium, f"{service.url}/login#token={service.token}") as page:
        page.goto(f"{service.url}/label/{name}")
        left(page, 0)
        other = service.new_token("bob", "label")
        with person(chromium, f"{service.url}/login#token={other}") as second:
            second.goto(f"{service.url}/label/{name}")
            second.get_by_text("Others have the last pairs before them").wait_for()
            page.keyboard.press("0")
            page.get_by_text("That was all").wait_for()
            second.reload()
            second.get_by_text("Every pair of this set is judged already").wait_for()
            wait_until(lambda: second.complaints == [])


def test_whoever_may_only_read_sees_how_far_it_is_and_is_shown_no_pair(service, chromium, add):
    name = add("readers", 1)
    with person(chromium, f"{service.url}/login#token={service.new_token('eve', 'read')}") as page:
        page.goto(f"{service.url}/label/{name}")
        page.get_by_text("You may look, and not label").wait_for()
        page.get_by_text("0 of 1 pairs").first.wait_for()
        assert page.complaints == []
