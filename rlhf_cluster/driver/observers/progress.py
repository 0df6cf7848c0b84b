"""What a person watching a job wants to know, folded from its events. Pure: the console only draws it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlhf_cluster.driver.observers.headline import headline
from rlhf_cluster.records.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    Generated,
    GroupDropped,
    JobEnded,
    JobStarted,
    Notice,
    Phase,
    RewardFailed,
    StepDone,
)

NUM_RECENT_STEPS = 10
"""The time left is judged by these: long enough to even out, short enough to notice a change of speed."""


@dataclass(slots=True, kw_only=True)
class Progress:
    job_name: str = ""
    num_steps: int = 0
    step: int = 0
    unit: str = "step"
    """What `step` and `num_steps` count: optimizer steps, or prompts while a job generates."""
    version: int = -1
    phase: str = "starting"
    metrics: dict[str, float] = field(default_factory=dict)
    """Newest finite value of every metric seen."""
    rewards: list[float] = field(default_factory=list)
    """`reward/mean` of every step that had one."""
    measure: str = ""
    """What the evaluations are judged by: `reward`, `accuracy` or `loss`."""
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    """(step, value of the measure)."""
    num_dropped: int = 0
    num_invalid: int = 0
    notices: deque[Notice] = field(default_factory=lambda: deque(maxlen=3))
    started_s: float = 0.0
    now_s: float = 0.0
    """Time of the newest event."""
    _finished_s: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_RECENT_STEPS + 1))

    def see(self, event: Event) -> None:
        self.now_s = event.time_s
        match event:
            case JobStarted():
                self.job_name, self.num_steps, self.step = event.job_name, event.num_steps, event.first_step
                self.started_s = event.time_s
            case Phase():
                self.phase = event.name
            case StepDone():
                self._see_step(event)
            case Evaluated():
                self._see_evaluation(event)
            case Generated():
                self._see_metrics(event.metrics)
                self.phase, self.unit = event.task, "prompt"
                self.step, self.num_steps = event.num_done, event.num_total
            case GroupDropped():
                self.num_dropped += 1
            case RewardFailed():
                self.num_invalid += 1
            case Notice():
                self.notices.append(event)
            case CheckpointSaved():
                self.phase = f"checkpoint saved to {event.path}"
            case JobEnded():
                self.phase = event.outcome
                self._finished_s.clear()

    def eta_s(self) -> float | None:
        """Seconds until the last step at the pace of the recent ones; None before two steps are done."""
        if len(self._finished_s) < 2:
            return None
        pace_s = (self._finished_s[-1] - self._finished_s[0]) / (len(self._finished_s) - 1)
        return pace_s * max(self.num_steps - self.step, 0)

    def _see_step(self, event: StepDone) -> None:
        self.step, self.version, self.phase = event.step, event.version, "training"
        self._finished_s.append(event.time_s)
        self._see_metrics(event.metrics)
        if math.isfinite(reward := event.metrics.get("reward/mean", math.nan)):
            self.rewards.append(reward)

    def _see_evaluation(self, event: Evaluated) -> None:
        self._see_metrics(event.metrics)
        if judged := headline(event.metrics):
            if judged.word != self.measure:
                self.measure, self.evaluations = judged.word, []
            self.evaluations.append((event.step, float(event.metrics[judged.metric])))

    def _see_metrics(self, metrics: Mapping[str, float]) -> None:
        self.metrics.update({name: float(value) for name, value in metrics.items() if math.isfinite(value)})
