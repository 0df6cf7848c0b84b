"""The page: whole, well formed, self-contained, and nothing that a model wrote is markup in it."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_cluster.report.evaluations import read_evaluations
from rlhf_cluster.report.html import VOID, Html, element, join
from rlhf_cluster.report.page import page
from rlhf_cluster.report.pictures import training_pictures
from rlhf_cluster.report.report import make_report, report_data

EVIL = '</article><script>alert("x")</script><img src=x onerror=alert(1)>&amp;\x1b[31m\u202e'


class Reader(HTMLParser):
    """Refuses what is not closed in order; notes tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


ROWS = [(f"p{number}", [float(number % 3), 0.5]) for number in range(8)]


@pytest.fixture
def made(evaluated, reward_model):
    better = [(prompt, [reward + 1 for reward in rewards]) for prompt, rewards in ROWS]
    job = ["evaluation.reference=true"]
    dirs = [evaluated("sft", ROWS, job=job), evaluated("ppo", better, job=job), reward_model]
    return make_report(read_evaluations(dirs), proxy=None)


def test_the_page_has_every_part_and_asks_the_network_for_nothing(made):
    html = page(made)
    reader = read(html)
    for shown in (
        "Against sft",
        "pass",
        "gold against proxy",
        "gold against the distance from the reference",
        "reward gold of each answer",
        "length of each answer",
        "Reward model rm",
        "calibration",
        "accuracy by margin",
        "accuracy by label",
        "largest gain of ppo over sft",
        "0f" * 16,
        "the whole job",
    ):
        assert shown in reader.text, shown
    assert reader.tags.count("svg") == 9
    assert {"script", "link", "img", "iframe"}.isdisjoint(reader.tags)
    assert not [value for name, value in reader.attributes if name in ("src", "href")]
    assert "url(" not in html
    assert "nan" not in html.lower()
    assert ("http-equiv", "Content-Security-Policy") in reader.attributes


def test_nothing_that_a_model_or_a_job_says_is_markup(evaluated, rewarded):
    groups = tuple(rewarded(number, f"{EVIL} {number}", [1.0], text=EVIL) for number in range(3))
    job_dir = evaluated("sft", groups=groups, job=[f"description={EVIL!r}"])
    reader = read(page(make_report(read_evaluations([job_dir]), proxy=None)))
    assert "script" not in reader.tags
    assert "img" not in reader.tags
    assert '<script>alert("x")</script>' in reader.text, "it is shown as it is"
    assert "\x1b" not in reader.text
    assert "\u202e" not in reader.text


@given(st.text())
def test_any_text_is_text(text):
    assert read(element("p", text, title=text)).tags == ["p"]


def test_html_is_not_escaped_twice():
    inner = element("b", "a & b")
    assert isinstance(inner, Html)
    assert element("p", [inner, ["&"]]) == "<p><b>a &amp; b</b>&amp;</p>"
    assert join(inner) is inner


def test_proxy_and_gold_of_a_job_are_on_one_chart(evaluated, journal_of):
    job_dir = evaluated("ppo", ROWS)
    curves = {
        "eval/reward/gold": [0.1, 0.6, -0.2],
        "eval/reward/proxy": [0.0, 1.0, 2.0],
        "reward/mean": [0.0, 1.0, 2.0],
    }
    journal_of(job_dir, curves)
    [picture] = training_pictures(make_report(read_evaluations([job_dir]), proxy=None))
    reader = read(picture)
    assert reader.tags.count("polyline") == 3
    assert "held-out gold" in reader.text
    assert "held-out proxy" in reader.text


def test_a_job_without_rewards_shows_its_loss(evaluated, journal_of, reward_model):
    journal_of(reward_model, {"eval/accuracy": [0.5, 0.75], "eval/loss": [0.7, 0.5]})
    sft = evaluated("sft", groups=())
    journal_of(sft, {"eval/loss": [2.0, 1.0], "learner/loss": [2.0, 1.0]})
    pictures = training_pictures(make_report(read_evaluations([reward_model, sft]), proxy=None))
    assert ["accuracy over steps" in pictures[0], "loss over steps" in pictures[1]] == [True, True]


def test_the_data_is_that_of_the_page_in_plain_json(made):

    data = report_data(made)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert [each["name"] for each in data["evaluations"]] == ["sft", "ppo", "rm"]
    assert data["compared"][0]["win_rate"]["value"] == made.compared[0].win_rate.value
    assert data["evaluations"][2]["reward_model"]["num_pairs"] == 12


def test_an_evaluation_of_nothing_is_still_a_page(evaluated):
    job_dir = evaluated("sft", groups=())
    assert read(page(make_report(read_evaluations([job_dir]), proxy=None))).tags.count("h2") == 2
