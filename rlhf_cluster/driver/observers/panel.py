"""The live panel of a running job: `Progress` in, a Rich renderable out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rlhf_cluster.driver.observers.figures import columns_of, duration, figure
from rlhf_cluster.driver.observers.progress import Progress

BARS = "▁▂▃▄▅▆▇█"
LEVEL_STYLES = {"info": "dim", "warning": "yellow", "error": "red"}
ROWS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("completions", (("rollout/completion_length_mean", "{} tokens"), ("driver/invalid_rate", "invalid rate {}"))),
    ("policy", (("learner/kl", "kl {}"), ("learner/entropy", "entropy {}"), ("learner/clip_fraction", "clipped {}"))),
    ("mismatch", (("learner/mismatch_kl", "rollout-train kl {}"), ("weights/probe_gap", "probe gap {}"))),
    (
        "learner",
        (
            ("learner/loss", "loss {}"),
            ("learner/accuracy", "accuracy {}"),
            ("learner/grad_norm", "grad norm {}"),
            ("learner/lr", "lr {}"),
        ),
    ),
    (
        "tokens/s",
        (
            ("rollout/tokens_per_s", "rollout {}"),
            ("learner/tokens_per_s", "learner {}"),
            ("reference/tokens_per_s", "reference {}"),
        ),
    ),
    ("seconds", (("driver/step_s", "step {}"), ("driver/gather_s", "gather {}"), ("learner/update_s", "update {}"))),
    ("staleness", (("driver/staleness_mean", "mean {}"), ("driver/staleness_max", "max {}"))),
)
"""A row of the panel: its label, and which metrics it shows how. What the job does not report is left out."""


def panel(progress: Progress, *, now_s: float) -> RenderableType:
    """`now_s` is Unix time; the elapsed time runs on between events."""
    title = Text.assemble(("rlhf", "bold"), f"  {progress.job_name}  ", (progress.phase, "cyan"))
    body = [_bar(progress, now_s=now_s), _table(progress), *_notices(progress)]
    return Panel(Group(*body), title=title, title_align="left", border_style="dim", padding=(0, 1))


def sparkline(values: Sequence[float], *, width: int = 40) -> str:
    """The last `width` values, or the means of as many equal stretches when there are more, as block characters.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    if not values:
        return ""
    columns = min(width, len(values))
    edges = [index * len(values) // columns for index in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    # The quotient comes first: one by a range that is hardly more than nothing would be infinite.
    heights = [(mean - low) / (high - low) if high > low else 0.0 for mean in means]
    return "".join(BARS[round(height * (len(BARS) - 1) + 1e-9)] for height in heights)


def _bar(progress: Progress, *, now_s: float) -> RenderableType:
    eta_s = progress.eta_s()
    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(
        f"{progress.unit} {progress.step}/{progress.num_steps}",
        ProgressBar(total=max(progress.num_steps, 1), completed=progress.step),
        f"{duration(max(now_s - progress.started_s, 0.0)) if progress.started_s else '0s'} elapsed"
        + (f", {duration(eta_s)} left" if eta_s is not None else ""),
    )
    return line


def _table(progress: Progress) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    if progress.rewards:
        reward = Text(f"{figure(progress.rewards[-1])}  ", style="bold")
        table.add_row("reward", reward.append(sparkline(progress.rewards), style="green"))
    if progress.evaluations:
        table.add_row("held-out", _evaluations(progress))
    for label, cells in ROWS:
        if shown := columns_of(progress.metrics, cells):
            table.add_row(label, "   ".join(shown))
    if progress.version >= 0:
        table.add_row("weights", f"version {progress.version}")
    if progress.num_dropped or progress.num_invalid:
        table.add_row("left out", f"{progress.num_dropped} groups dropped   {progress.num_invalid} rewards invalid")
    return table


def _evaluations(progress: Progress) -> str:
    (_, first), (step, last) = progress.evaluations[0], progress.evaluations[-1]
    shown = figure(first) if len(progress.evaluations) == 1 else f"{figure(first)} -> {figure(last)} (step {step})"
    return shown if progress.measure == "reward" else f"{progress.measure} {shown}"


def _notices(progress: Progress) -> list[RenderableType]:
    return [
        Text(f"{notice.level}: {notice.text}", style=LEVEL_STYLES.get(notice.level, ""), overflow="ellipsis")
        for notice in progress.notices
    ]
