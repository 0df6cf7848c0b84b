"""`report.html`: one file that needs nothing beside it, in both themes, on paper and on a telephone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib import resources

from rlhf_cluster.driver.observers.figures import figure
from rlhf_cluster.functional.statistics import Interval
from rlhf_cluster.report.comparison import Compared, Shown
from rlhf_cluster.report.evaluations import Evaluation
from rlhf_cluster.report.html import Child, Html, element, join
from rlhf_cluster.report.pictures import policy_pictures, reward_model_pictures, training_pictures
from rlhf_cluster.report.plot import colour
from rlhf_cluster.report.report import SEED, Report

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser lets the page do: show itself."""


def page(report: Report) -> str:
    names = " · ".join(each.name for each in report.evaluations)
    style = Html((resources.files("rlhf_cluster.report") / "page.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"Report: {names}"),
        element("style", style),
    )
    body = element("body", element("h1", names), element("p", _lead(report), class_="lead"), list(_sections(report)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _lead(report: Report) -> str:
    policies = report.policies
    if not policies:
        return "held-out preferences"
    prompts = ", ".join(f"{each.data['num_prompts']} prompts ({each.data['num_answers']} answers)" for each in policies)
    return f"good is what the reward {report.by} says; {prompts}"


def _sections(report: Report) -> Iterator[Html]:
    if report.compared:
        yield _section(f"Against {report.baseline.name}", [_verdict(each, report) for each in report.compared])
    yield _section("Figures", _figures(report), element("p", _how_intervals(), class_="note"))
    if pictures := policy_pictures(report):
        yield _section("Rewards, lengths, distance", element("div", pictures, class_="pictures"))
    if pictures := training_pictures(report):
        yield _section("Training", element("div", pictures, class_="pictures"))
    for each in report.evaluations:
        if each.reward_model is not None:
            yield _reward_model(each)
    if report.shown:
        yield _section("Answers side by side", [_sample(each, report) for each in report.shown])
    yield _section("How it was made", [_origin(each) for each in report.evaluations])


def _section(title: str, *content: Child) -> Html:
    return element("section", element("h2", title), content)


def _verdict(compared: Compared, report: Report) -> Html:
    rate, gap = compared.win_rate, compared.difference
    judged = compared.judged
    parts: list[Child] = [
        element("b", compared.name),
        f" wins {rate.value:.1%} ",
        _range(rate, "{:.1%}"),
        f" by {report.by} over {compared.num_prompts} prompts; its mean differs by {gap.value:+.3g} ",
        _range(gap, "{:+.3g}"),
    ]
    if judged is not None:
        unjudged = f", {compared.num_unjudged} pairs without a verdict" if compared.num_unjudged else ""
        parts += [f"; {judged.value:.1%} ", _range(judged, "{:.1%}"), f" by the judge {report.judge}{unjudged}"]
    return element("p", parts, ".", class_="verdict")


def _range(interval: Interval, form: str) -> Html:
    return element("span", f"[{form.format(interval.low)}, {form.format(interval.high)}]", class_="note")


def _figures(report: Report) -> Html:
    heads = [element("th", element("i", class_=f"key {colour(i)}"), e.name) for i, e in enumerate(report.evaluations)]
    rows = [element("tr", element("th", name), [_cell(each) for each in found]) for name, found in report.figures]
    head = element("thead", element("tr", element("th", "figure"), heads))
    return element("div", element("table", head, element("tbody", rows)), class_="scroll")


def _cell(interval: Interval | None) -> Html:
    if interval is None:
        return element("td", "-")
    spread = f"{figure(interval.low)} to {figure(interval.high)}"
    return element("td", figure(interval.value), element("span", spread, class_="range"))


def _how_intervals() -> str:
    return (
        "Ranges are 95 % confidence intervals: a percentile bootstrap over prompts, which several answers share, with "
        f"seed {SEED} for comparisons and the job's for figures; where all prompts agree, Wilson's interval over "
        "prompts. A win rate counts every pair of answers to one prompt, ties half."
    )


def _reward_model(evaluation: Evaluation) -> Html:
    told = evaluation.reward_model or {}
    accuracy = told["accuracy"]
    sentence = (
        f"Of {told['num_pairs']} held-out pairs {accuracy['value']:.1%} are scored in the order of their labels "
        f"({told['num_ties']} ties left out). Brier score {told['brier']:.3f}, where a coin has 0.250; expected "
        f"calibration error {told['expected_calibration_error']:.3f}."
    )
    pictures = element("div", reward_model_pictures(told), class_="pictures")
    return _section(f"Reward model {evaluation.name}", element("p", sentence), pictures)


def _sample(shown: Shown, report: Report) -> Html:
    cells = []
    for index, evaluation in enumerate(report.evaluations):
        if evaluation in report.policies:
            place = report.policies.index(evaluation)
            cells.append(_answer(shown, place, evaluation.name, style=colour(index), by=report.by))
    return element(
        "article",
        element("p", shown.why, class_="why"),
        element("p", shown.prompt, class_="prompt"),
        element("div", cells, class_="answers"),
        class_="sample",
    )


def _answer(shown: Shown, place: int, name: str, *, style: str, by: str) -> Html:
    answer = shown.answers[place]
    if answer is None:
        content: list[Child] = [element("p", "not asked", class_="worth")]
    else:
        worth = " · ".join(f"{name} {figure(value)}" for name, value in answer.rewards.items())
        mean = f"mean {by} of all its answers {figure(shown.means[place])}"
        content = [
            element("p", answer.completion, class_="text"),
            element("p", answer.invalid or worth, class_="worth"),
            element("p", f"{answer.length} tokens, {answer.finish_reason}; {mean}", class_="worth"),
        ]
    return element("div", element("p", name, class_="name"), content, class_=f"answer {style}")


def _origin(evaluation: Evaluation) -> Html:
    data = evaluation.data
    facts = [
        ("model", data["model"]),
        ("weights", data["fingerprint"] or "not hashed: none were handed over"),
        ("reference", data["reference"] or "not asked"),
        ("step", data["step"]),
        ("seed", data["seed"]),
        ("evaluated", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(data["time_s"]))),
        ("versions", ", ".join(f"{name} {told}" for name, told in data["versions"].items())),
        ("directory", evaluation.job_dir),
    ]
    rows = [element("tr", element("th", name), element("td", str(fact))) for name, fact in facts]
    config = json.dumps(data["config"], indent=2, ensure_ascii=False)
    return join(
        [
            element("h3", evaluation.name),
            element("div", element("table", element("tbody", rows)), class_="scroll"),
            element("details", element("summary", "the whole job"), element("pre", config)),
        ]
    )
