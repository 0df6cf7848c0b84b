"""The live panel of a job of a service: what the stream tells, folded as the console folds the events of a job here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from rlhf_cluster.cli.job_text import pool_table
from rlhf_cluster.cli.service import OVER, patiently
from rlhf_cluster.cli.watch import is_end
from rlhf_cluster.client.stream import OPENED, RESYNC, STILL_THERE
from rlhf_cluster.driver.observers.excerpt import excerpt
from rlhf_cluster.driver.observers.panel import panel
from rlhf_cluster.driver.observers.progress import Progress
from rlhf_cluster.records.events import Evaluated, Event, Generated, Notice, Phase, StepDone

if TYPE_CHECKING:
    from rlhf_cluster.client import Client, StreamMessage
    from rlhf_cluster.wire.jobs import JobDetail, Pool

REWARD, HELD_OUT = "reward/mean", "eval/reward_mean"
MAX_POINTS = 400
REDRAWN_PER_S = 4
LOOK_EVERY_S = 2.0
"""At the job and its pools, as long as something happens."""
EVENTS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "Phase": lambda event: {"name": event["text"]},
    "StepDone": lambda event: {"version": event["body"]["version"], "metrics": _finite(event["body"]), "groups": ()},
    "Evaluated": lambda event: {"metrics": _finite(event["body"]), "groups": ()},
    "Generated": lambda event: {
        **{name: event["body"][name] for name in ("task", "num_done", "num_total")},
        "metrics": _finite(event["body"]),
        "path": Path(event["body"]["path"]),
    },
    "Notice": lambda event: _words(event),
    "GuardTripped": lambda event: _words(event),
}
"""Kinds that move the panel -> the fields of their record."""
RECORDS: Mapping[str, type[Event]] = {
    **{kind.__name__: kind for kind in (Phase, StepDone, Evaluated, Generated, Notice)},
    "GuardTripped": Notice,
}


def show_live(client: Client, job_id: str, messages: Iterator[StreamMessage]) -> JobDetail:
    """Until the job is over."""
    watched = Watched(client, job_id)
    with Live(get_renderable=watched.draw, refresh_per_second=REDRAWN_PER_S, transient=False) as live:
        for message in messages:
            watched.take(message)
            if watched.is_over:
                break
        live.refresh()
    return watched.job


class Watched:
    """A job, as far as it was heard of."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self._job_id = job_id
        self._progress = Progress()
        self._pools: list[Pool] = []
        self._looked_s = 0.0
        self._known_step = -1
        self._drawing = threading.Lock()
        self.job = client.job(job_id)
        self.is_over = False

    def take(self, message: StreamMessage) -> None:
        """Raises `ServiceAway` when the service stays away."""
        kind = message.data.get("kind")
        if message.topic in (OPENED, RESYNC) or kind == "JobStarted":
            self._begin()
        elif kind in RECORDS:
            self._see(str(kind), message.data)
        is_quiet = time.monotonic() - self._looked_s < LOOK_EVERY_S
        if message.topic == STILL_THERE or is_end(message) or not is_quiet:
            self._look()

    def draw(self) -> RenderableType:
        lines = [
            Text(f"{name}: {excerpt(text, width=600)}", style="dim")
            for name, text in (("waits for", self.job.waiting_for), ("bottleneck", self.job.bottleneck))
            if text
        ]
        pools = [Text(pool_table(self._pools))] if self._pools else []
        with self._drawing:
            return Group(panel(self._progress, now_s=time.time()), *lines, *pools)

    def _begin(self) -> None:
        """From the start: something may have been missed, or the job does steps once more."""
        self._look()
        series = patiently(lambda: self._client.series(self._job_id, [REWARD, HELD_OUT], max_points=MAX_POINTS)).series
        points = {each.key: list(zip(each.steps, each.values, strict=True)) for each in series}
        latest = patiently(lambda: self._client.latest(self._job_id))
        self._known_step = latest.step
        self._progress = Progress(
            job_name=excerpt(self.job.name, width=60),
            num_steps=self.job.num_steps,
            step=max(self.job.step, latest.step),
            unit=self.job.unit.removesuffix("s"),
            phase=excerpt(self.job.phase or self.job.state),
            metrics={key: value for key, value in latest.values.items() if value is not None},
            rewards=[value for _, value in points.get(REWARD, ()) if value is not None],
            evaluations=[(step, value) for step, value in points.get(HELD_OUT, ()) if value is not None],
            started_s=self.job.started_s or 0.0,
        )

    def _see(self, kind: str, event: Mapping[str, Any]) -> None:
        if kind == "StepDone" and event["step"] <= self._known_step:
            return  # it was among what `_begin` asked for
        record = RECORDS[kind](time_s=event["time_s"], step=event["step"], **EVENTS[kind](event))
        with self._drawing:
            self._progress.see(record)

    def _look(self) -> None:
        self.job = patiently(lambda: self._client.job(self._job_id))
        self._pools = patiently(lambda: self._client.pools(self._job_id))
        self._looked_s, self.is_over = time.monotonic(), self.job.state in OVER
        if self.is_over or self.job.state != "running":
            self._progress.phase = self.job.state


def _words(event: Mapping[str, Any]) -> dict[str, Any]:
    return {"level": event["level"], "text": excerpt(event["text"], width=600)}


def _finite(body: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in (body.get("metrics") or {}).items() if value is not None}
