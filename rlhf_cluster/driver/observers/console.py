"""The console: a live panel on a terminal, one plain line a step anywhere else (log files, CI, pipes)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from rlhf_cluster.driver.observers.excerpt import excerpt
from rlhf_cluster.driver.observers.figures import columns_of, duration, figure
from rlhf_cluster.driver.observers.progress import Progress
from rlhf_cluster.records.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Generated,
    JobEnded,
    JobStarted,
    Notice,
    Phase,
    RewardFailed,
    StepDone,
)

REFRESH_PER_S = 2
"""Of the live panel: the elapsed time ticks, and drawing stays below a percent of one core."""
STEP_COLUMNS = (
    ("reward/mean", "reward {}"),
    ("learner/accuracy", "accuracy {}"),
    ("learner/kl", "kl {}"),
    ("rollout/completion_length_mean", "length {}"),
    ("rollout/tokens_per_s", "rollout {} tok/s"),
    ("learner/tokens_per_s", "learner {} tok/s"),
    ("driver/staleness_max", "staleness {}"),
    ("driver/step_s", "{} s"),
)
LOSS = ("learner/loss", "loss {}")
"""Shown of jobs without a reward; of the others it tells nothing."""
EVALUATION_COLUMNS = (
    ("eval/reward_mean", "reward {}"),
    ("eval/loss", "loss {}"),
    ("eval/accuracy", "accuracy {}"),
    ("eval/margin", "margin {}"),
    ("eval/kl", "kl {}"),
    ("eval/completion_length_mean", "length {}"),
)


class Console:
    """`LivePanel` or `PlainLines`, whichever the stream can show."""

    def __init__(self, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        self._shown: LivePanel | PlainLines = LivePanel(stream) if stream.isatty() else PlainLines(stream)

    def on_event(self, event: Event) -> None:
        self._shown.on_event(event)

    def close(self) -> None:
        self._shown.close()


class PlainLines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._progress = Progress()
        self._known_failures: set[tuple[str, str]] = set()

    def on_event(self, event: Event) -> None:
        self._progress.see(event)
        if line := self._line(event):
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """The stream is not ours to close."""

    def _line(self, event: Event) -> str | None:
        match event:
            case JobStarted():
                steps = f"steps {event.first_step + 1} to {event.num_steps} " if event.num_steps else ""
                return f"{event.job_name}: {steps}in {event.job_dir}"
            case Phase():
                return f"{event.name} ..."
            case StepDone():
                return step_line(self._progress)
            case Evaluated():
                return f"step {event.step}: {evaluation_line(event)}"
            case Generated():
                return generated_line(event)
            case CheckpointSaved():
                return f"step {event.step}: checkpoint saved to {event.path}"
            case RewardFailed():
                return self._first_failure(event)
            case Notice():
                return f"{event.level}: {excerpt(event.text, width=1000)}"
            case JobEnded():
                return f"{event.outcome}: {event.message}" if event.message else event.outcome
        return None

    def _first_failure(self, event: RewardFailed) -> str | None:
        """One line for each kind of failure; the counts are in the metrics."""
        kind = (event.invalid.source, event.invalid.kind)
        if kind in self._known_failures:
            return None
        self._known_failures.add(kind)
        return f"warning: {kind[0]} {kind[1]}: {excerpt(event.invalid.message, width=200)}"


class LivePanel:
    """Redrawn by Rich's own thread; an event only changes the `Progress` that the thread draws."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.time) -> None:
        import rich.console
        import rich.live

        from rlhf_cluster.driver.observers.panel import panel

        self._progress = Progress()
        self._live = rich.live.Live(
            console=rich.console.Console(file=stream),
            get_renderable=lambda: panel(self._progress, now_s=clock()),
            refresh_per_second=REFRESH_PER_S,
        )
        self._live.start()

    def on_event(self, event: Event) -> None:
        self._progress.see(event)

    def close(self) -> None:
        """Leave the last picture on the screen and give the terminal back."""
        self._live.stop()


def step_line(progress: Progress) -> str:
    eta_s = progress.eta_s()
    left = [f"{duration(eta_s)} left"] if eta_s is not None else []
    columns = STEP_COLUMNS if "reward/mean" in progress.metrics else (LOSS, *STEP_COLUMNS)
    shown = columns_of(progress.metrics, columns)
    return "  ".join([f"step {progress.step}/{progress.num_steps}", *shown, f"version {progress.version}", *left])


def evaluation_line(event: Evaluated) -> str:
    return "  ".join(["held-out", *columns_of(event.metrics, EVALUATION_COLUMNS)])


def generated_line(event: Generated) -> str:
    figures = [f"{name.partition('/')[2]} {figure(value)}" for name, value in sorted(event.metrics.items())]
    return "  ".join([f"{event.task} {event.num_done}/{event.num_total}", *figures])
