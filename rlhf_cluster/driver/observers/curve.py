"""The learning curve as a picture, `curve.png`: reward of training and of held-out prompts, and below it KL and length;
of a job without rewards its loss, and below it the accuracy.

Drawn every few seconds of progress and at the end, in a thread, and put in place by a rename: a viewer never sees
half a picture.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_cluster.driver.observers import journal
from rlhf_cluster.records.events import Evaluated, Event, JobEnded, JobStarted, StepDone

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE_NAME = "curve.png"
DRAW_LIMIT_S = 60.0
INK, FAINT, ACCENT, SECOND = "#1f2933", "#9fb3c8", "#0b7285", "#d9480f"


@dataclass(slots=True, kw_only=True)
class Points:
    """(step, value) pairs by metric name, oldest first."""

    title: str = ""
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, float | None], *, step: int) -> None:
        """Take the finite ones; a journal has None in place of the others."""
        for name, value in metrics.items():
            if value is not None and math.isfinite(value):
                self.series.setdefault(name, []).append((step, value))

    def copy(self) -> Points:
        return Points(title=self.title, series={name: list(points) for name, points in self.series.items()})


class Curve:
    def __init__(self, job_dir: Path, *, every_s: float = 20.0) -> None:
        self._job_dir = job_dir
        self._every_s = every_s
        self._drawn_s = 0.0
        self._points = Points()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="curve")
        self._drawing: Future[None] | None = None

    def on_event(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            self._start(event)
        elif isinstance(event, StepDone | Evaluated):
            self._points.add(event.metrics, step=event.step)
            if event.time_s >= self._drawn_s + self._every_s and self._is_idle():
                self._draw(event)
        elif isinstance(event, JobEnded):
            self._draw(event)

    def close(self) -> None:
        try:
            self._finish_drawing()
        finally:
            self._thread.shutdown(wait=False)

    def _start(self, event: JobStarted) -> None:
        """A resumed job goes on with the curve of the steps it keeps."""
        self._points.title = event.job_name
        self._drawn_s = event.time_s
        if event.first_step:
            for entry in journal.read(event.job_dir):
                if entry["step"] <= event.first_step:
                    self._points.add(entry.get("metrics", {}), step=entry["step"])

    def _draw(self, event: Event) -> None:
        self._drawn_s = event.time_s
        self._drawing = self._thread.submit(draw, self._points.copy(), self._job_dir / FILE_NAME)

    def _is_idle(self) -> bool:
        """Whether nothing is being drawn. Raises what the last drawing raised."""
        if self._drawing is None:
            return True
        if self._drawing.done():
            self._finish_drawing()
            return True
        return False

    def _finish_drawing(self) -> None:
        drawing, self._drawing = self._drawing, None
        if drawing is not None:
            drawing.result(timeout=DRAW_LIMIT_S)


def draw(points: Points, path: Path) -> None:
    """Write the picture of `points` to `path`, whole or not at all."""
    # The object interface of matplotlib: pyplot keeps global state and is not for threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(picture)
    upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    if {"reward/mean", "eval/reward_mean"} & points.series.keys() or "learner/loss" not in points.series:
        _draw_judged(upper, points, training="reward/mean", held_out="eval/reward_mean", label="reward")
        _draw_kl_and_length(lower, points)
    else:
        _draw_judged(upper, points, training="learner/loss", held_out="eval/loss", label="loss")
        _draw_accuracy(lower, points)
    _whole_steps(lower)
    upper.set_title(points.title, loc="left", color=INK, fontweight="bold")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    picture.savefig(unfinished, format="png", dpi=120)
    os.replace(unfinished, path)


def smoothed(values: list[float], *, weight: float = 0.2) -> list[float]:
    """Exponential mean that starts at the first value: each new value counts `weight`."""
    means: list[float] = []
    for value in values:
        means.append(value if not means else weight * value + (1 - weight) * means[-1])
    return means


def _draw_judged(axes: Axes, points: Points, *, training: str, held_out: str, label: str) -> None:
    if trained := points.series.get(training):
        steps, values = zip(*trained, strict=True)
        axes.plot(steps, values, color=FAINT, linewidth=1, label="training, each step")
        axes.plot(steps, smoothed(list(values)), color=ACCENT, linewidth=2, label="training, smoothed")
    if evaluated := points.series.get(held_out):
        steps, values = zip(*evaluated, strict=True)
        axes.plot(steps, values, color=SECOND, marker="o", linewidth=1.5, label="held out")
        for step, value in (evaluated[0], evaluated[-1]):
            axes.annotate(f"{value:.3f}", (step, value), (0, 7), textcoords="offset points", ha="center", color=SECOND)
    if trained or evaluated:
        axes.legend(loc="best", frameon=False)
    _plain_frame(axes, label=label)


def _draw_accuracy(axes: Axes, points: Points) -> None:
    for name, color, marker in (("learner/accuracy", FAINT, ""), ("eval/accuracy", SECOND, "o")):
        if found := points.series.get(name):
            axes.plot(*zip(*found, strict=True), color=color, marker=marker, linewidth=1.5)
    _plain_frame(axes, label="accuracy")


def _draw_kl_and_length(axes: Axes, points: Points) -> None:
    if kl := points.series.get("learner/kl"):
        axes.plot(*zip(*kl, strict=True), color=ACCENT, linewidth=1.5)
    _plain_frame(axes, label="KL to reference", color=ACCENT)
    if length := points.series.get("rollout/completion_length_mean"):
        right = axes.twinx()
        right.plot(*zip(*length, strict=True), color=FAINT, linewidth=1.5)
        right.set_ylabel("tokens", color=FAINT)
        right.spines[["top", "left"]].set_visible(False)


def _whole_steps(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _plain_frame(axes: Axes, *, label: str, color: str = INK) -> None:
    axes.set_ylabel(label, color=color)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
