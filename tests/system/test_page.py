"""The page in a real browser, before the real service with a seeded database: every view, in both themes, wide and
narrow; whether everybody can use it; and that it draws what the stream tells instead of asking for it.

Pictures of all views go to `RLHF_SHOTS`, where that is set: looking at them is no test.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .page_stage import AXE, Seeded, browser, needs_page, person, seeded, wait_until

pytestmark = [needs_page, pytest.mark.slow]
VIEWS = {
    "jobs": ("/jobs", "positive-reviews"),
    "new": ("/jobs/new", "known only where its model is"),
    "compare": ("/compare?job={succeeded}&job={running}", "Completion length"),
    "label": ("/label", "helpful-answers"),
    "judge": ("/label/helpful-answers", "2 judged by you"),
    "statistics": ("/label/helpful-answers/statistics", "Cohen's kappa"),
    "cluster": ("/cluster", "No nodes known"),
    "tokens": ("/tokens", "Handed out"),
    "overview": ("/jobs/{running}", "Where the time goes"),
    "charts": ("/jobs/{running}/charts", "Clip fraction"),
    "workers": ("/jobs/{running}/workers", "the autoscaler was asked"),
    "samples": ("/jobs/{running}/samples?diff=best&step=143", "the best of its siblings"),
    "logs": ("/jobs/{running}/logs?component=rollout-0", "adopted version"),
    "timeline": ("/jobs/{running}/timeline", "rollout-3 is lost"),
    "checkpoints": ("/jobs/{running}/checkpoints", "step-000125"),
    "config": ("/jobs/{running}/config", "learner.optimizer.lr"),
    "failed": ("/jobs/{failed}", "the loss is not finite"),
    "queued": ("/jobs/{queued}/charts", "No curves yet"),
}
"""Path, and what can be read there when all is loaded."""
SHOTS = os.environ.get("RLHF_SHOTS")
WIDE, NARROW = 1440, 420
LOOKS = ((WIDE, "light"), (WIDE, "dark"), (NARROW, "dark"), (NARROW, "light"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    with seeded(tmp_path_factory.mktemp("seeded")) as service:
        yield service


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as chromium:
        yield chromium


def test_every_view_fits_its_window_and_has_no_fault_that_keeps_anybody_out(service, chromium, tmp_path):
    shots = Path(SHOTS) if SHOTS else tmp_path
    faults: list[str] = []
    with person(chromium, login(service)) as page:
        for name, (path, text) in VIEWS.items():
            page.goto(service.url + path.format(**service.jobs))
            page.get_by_text(text).first.wait_for()
            wait_until(lambda: page.get_by_label("Loading").count() == 0)
            for width, theme in LOOKS:
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(color_scheme=theme)
                page.screenshot(path=shots / f"{name}-{theme}-{width}.png")
                wider_by = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                faults += [f"{name} is {wider_by} pixels wider than {width}"] * (wider_by > 0)
                faults += [f"{name}, {theme}: {fault}" for fault in (unusable(page) if width == WIDE else [])]
        assert page.complaints == []
    assert faults == []


def login(service: Seeded) -> str:
    return f"{service.url}/login#token={service.token}"


def unusable(page: Any) -> list[str]:
    """What axe finds, of those kinds that keep somebody out."""
    if not AXE.exists():
        return []
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate(
        "axe.run(document, { resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa'] })"
    )
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:120]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]


def test_steps_are_drawn_from_the_stream_and_nothing_is_asked_for_at_every_event(service, chromium):
    with person(chromium, login(service)) as page:
        page.goto(f"{service.url}/jobs/{service.jobs['running']}/charts")
        before = shown_steps(page)
        asked: Counter[str] = Counter()
        page.on("request", lambda request: asked.update([request.url.partition("?")[0].rpartition("/api/v1")[2]]))
        wait_until(lambda: shown_steps(page) >= before + 6)
        assert not [path for path in asked if "metrics" in path], asked
        assert all(times <= 5 for times in asked.values()), asked
        page.evaluate(HIDE)
        asked.clear()
        wait_until(lambda: shown_steps(page) >= before + 10)
        assert not asked


HIDE = (
    "Object.defineProperty(document, 'visibilityState', { value: 'hidden' });"
    "document.dispatchEvent(new Event('visibilitychange'))"
)


def shown_steps(page: Any) -> int:
    """Points of the reward's curve, as a screen reader is told."""
    told = page.get_by_role("img", name=re.compile("^Reward over")).get_attribute("aria-label")
    return int(re.search(r"over (\d+) steps", told)[1])


def test_a_page_loads_in_a_few_hundred_kilobytes(service, chromium):
    with person(chromium, login(service)) as page:
        page.goto(f"{service.url}/jobs/{service.jobs['running']}/charts")
        shown_steps(page)
        sizes = page.evaluate(
            "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
            ".filter(each => !each.name.includes('/api/')).map(each => each.encodedBodySize)"
        )
    assert 50_000 < sum(sizes) < 200_000, sizes


def test_a_job_is_submitted_scaled_and_cancelled_by_the_keyboard_alone(service, chromium):
    with person(chromium, login(service)) as page:
        to(page, "link", "New job")
        page.keyboard.press("Enter")
        to(page, "button", re.compile("^word-world"))
        page.keyboard.press("Enter")
        to(page, "textbox", "Name")
        page.keyboard.type("by-keyboard")
        page.get_by_text("good", exact=True).wait_for()
        to(page, "button", "Submit the job")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="by-keyboard").wait_for()
        job_id = page.url.rpartition("/")[2]
        to(page, "link", "Workers")
        page.keyboard.press("Enter")
        to(page, "button", "One more", within="Number of rollout workers")
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        page.get_by_text("Asked for 3 rollout workers.").wait_for()
        pools = {pool["pool"]: pool for pool in service.get(f"/jobs/{job_id}/pools")["items"]}
        assert pools["rollout"]["replicas"] == 3
        to(page, "button", "Cancel", backwards=True)
        page.keyboard.press("Enter")
        to(page, "button", "Cancel the job")
        page.keyboard.press("Enter")
        page.get_by_text("Cancelled", exact=True).first.wait_for()
        assert service.get(f"/jobs/{job_id}")["state"] == "cancelled"


def test_a_click_while_an_earlier_wish_is_under_way_counts(service, chromium):
    asked = re.compile("/pools/rollout$")
    wishes: list[Any] = []

    def hold_the_first(route: Any) -> None:
        wishes.append(route)
        if len(wishes) > 1:
            route.continue_()

    with person(chromium, login(service)) as page:
        page.goto(f"{service.url}/jobs/{service.jobs['queued']}/workers")
        stepper = page.get_by_role("group", name="Number of rollout workers")
        more = stepper.get_by_role("button", name="One more")
        before = int(stepper.get_by_role("spinbutton").input_value())
        page.route(asked, hold_the_first)
        with page.expect_request(asked):
            more.click()
        more.click(timeout=2000)
        wishes[0].continue_()
        page.get_by_text(f"Asked for {before + 2} rollout workers.").wait_for()
        assert page.complaints == []
    assert [route.request.post_data_json["replicas"] for route in wishes] == [before + 1, before + 2]


def test_a_worker_is_restarted_and_another_drained_after_one_was_asked_whether_one_means_it(service, chromium):
    with person(chromium, login(service)) as page:
        page.goto(f"{service.url}/jobs/{service.jobs['running']}/workers")
        for verb, told in (("Restart", "is replaced by a new one"), ("Drain", "hands its work over and leaves")):
            page.get_by_role("button", name=f"{verb} rollout-1").click()
            page.get_by_role("button", name=f"{verb} it").click()
            page.get_by_text(f"rollout-1 {told}").wait_for()
        assert page.complaints == []


def test_a_token_is_made_shown_once_and_revoked(service, chromium):
    with person(chromium, login(service)) as page:
        page.get_by_role("link", name="Tokens").click()
        page.get_by_label("For whom").fill("nightly")
        page.get_by_role("button", name="Make it").click()
        page.get_by_text("shown this once").wait_for()
        page.reload()
        page.get_by_role("button", name="Revoke nightly").click()
        assert page.get_by_text("shown this once").count() == 0
        page.get_by_role("button", name="Revoke it").click()
        page.get_by_text("nightly is revoked").wait_for()
        page.get_by_role("row", name=re.compile("nightly")).wait_for(state="detached")


def to(page: Any, role: str, name: Any, *, within: str | None = None, backwards: bool = False) -> None:
    """The Tab key until that has the focus."""
    place = page.get_by_role("group", name=within) if within else page
    wanted = place.get_by_role(role, name=name, exact=isinstance(name, str)).first
    wanted.wait_for()
    for _ in range(80):
        if wanted.evaluate("it => it === document.activeElement"):
            return
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
    raise AssertionError(f"the keyboard does not reach {name}")
