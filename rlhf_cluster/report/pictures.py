"""Which pictures a report has, from what its evaluations hold; what nothing is known of has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_cluster.driver.answers import TOTAL
from rlhf_cluster.driver.observers.curve import smoothed
from rlhf_cluster.functional.statistics import Interval
from rlhf_cluster.report.charts import Line, accuracy_by_margin, calibration, histograms, lines, scatter
from rlhf_cluster.report.evaluations import Evaluation, figure_of, metric_of
from rlhf_cluster.report.html import Html
from rlhf_cluster.report.plot import colour
from rlhf_cluster.report.report import Report

Named = list[tuple[int, str, Interval, Interval]]


def policy_pictures(report: Report) -> list[Html]:
    by = report.by
    pictures = []
    if report.proxy and (found := _pairs(report, figure_of(report.proxy), figure_of(by))):
        pictures.append(scatter(found, title=f"{by} against {report.proxy}", x=report.proxy, y=by))
    if found := _pairs(report, "kl", figure_of(by)):
        title, x = f"{by} against the distance from the reference", "KL, nats a completion"
        pictures.append(scatter(found, title=title, x=x, y=by, include_x=(0.0,)))
    for name in (by, *([report.proxy] if report.proxy else [])):
        values = [(colour(i), e.name, [answer.reward(name) for answer in e.answers]) for i, e in _policies(report)]
        if any(value == value for _, _, told in values for value in told):
            pictures.append(histograms(values, title=f"reward {name} of each answer", x=name))
    lengths = [(colour(i), e.name, [float(answer.length) for answer in e.answers]) for i, e in _policies(report)]
    if lengths:
        pictures.append(histograms(lengths, title="length of each answer", x="tokens"))
    return pictures


def training_pictures(report: Report) -> list[Html]:
    """Of each job that has a journal: what is wanted and what was trained on, over the same steps. Where the second
    rises and the first falls, the policy has learned to please the proxy."""
    drawn = [_training(each, report) for each in report.evaluations]
    return [picture for picture in drawn if picture is not None]


def reward_model_pictures(told: Mapping[str, Any]) -> list[Html]:
    scores = [("c3", "preferred", told["chosen"]), ("c4", "rejected", told["rejected"])]
    pictures = [
        calibration(told["curve"], title="calibration"),
        histograms(scores, title="scores of the two", x="score"),
        accuracy_by_margin(
            told["accuracy_by_margin"], title="accuracy by margin", x="how far apart the model's scores are, in fifths"
        ),
    ]
    if bins := told["accuracy_by_label_gap"]:
        x = "how far apart the labels are, in as equal parts as they allow"
        pictures.append(accuracy_by_margin(bins, title="accuracy by label", x=x))
    return pictures


def _policies(report: Report) -> list[tuple[int, Evaluation]]:
    return [(index, each) for index, each in enumerate(report.evaluations) if each.answers]


def _pairs(report: Report, x: str, y: str) -> Named:
    return [
        (index, each.name, each.figures[x], each.figures[y])
        for index, each in _policies(report)
        if x in each.figures and y in each.figures
    ]


def _training(evaluation: Evaluation, report: Report) -> Html | None:
    series = evaluation.curves.series
    if evaluation.reward_model is not None:
        wanted = [("learner/accuracy", "training", "faint"), ("eval/accuracy", "held out", "c0")]
        y = "accuracy"
    else:
        wanted = [("reward/mean", "training, smoothed", "faint"), *_held_out(report, series)]
        y = "reward"
    if not any(name in series for name, _, _ in wanted):
        wanted, y = [("learner/loss", "training", "faint"), ("eval/loss", "held out", "c0")], "loss"
    drawn = [
        Line(name=name, points=_smoothed(series[metric]) if style == "faint" else series[metric], style=style)
        for metric, name, style in wanted
        if len(series.get(metric, [])) > 1
    ]
    return lines(drawn, title=f"{evaluation.name}: {y} over steps", x="step", y=y) if drawn else None


def _held_out(report: Report, series: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is wanted and what was trained on; of a job that knew neither name, its own reward."""
    rewards = [(report.by, "c3"), *([(report.proxy, "c1")] if report.proxy else [])]
    known = [(metric_of(name), f"held-out {name}", style) for name, style in rewards if metric_of(name) in series]
    return known or [(metric_of(TOTAL), "held-out reward of the job", "c3")]


def _smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return list(zip([step for step, _ in points], smoothed([value for _, value in points]), strict=True))
