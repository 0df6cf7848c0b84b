"""Who waits for whom, and how many rollout workers that calls for: the policies of `flow/`, fed once a step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.driver.sizes import Bounds, Sizes
from rlhf_cluster.flow.bottleneck import Bottleneck, StepTimes
from rlhf_cluster.flow.scaling import Decision, ScalingPolicy, StepRates
from rlhf_cluster.records.events import Event, Notice
from rlhf_cluster.records.members import RoleTime

if TYPE_CHECKING:
    from rlhf_cluster.driver.fleet import Fleet

NO_BOUNDS = Bounds(min_workers=1, max_workers=sys.maxsize)
STAYS = 10
"""Steps in a row after which a policy that leaves the number as it is says why, once."""


class Pacing:
    """Observes every step. While `sizes.bounds` are set it also sets the size of the rollout pool; else it advises."""

    def __init__(
        self, job: JobConfig, fleet: Fleet, sizes: Sizes, *, emit: Callable[[Event], None], clock: Clock
    ) -> None:
        self.sizes = sizes
        self.sentence = ""
        """The bottleneck of the last steps, for people."""
        self.time_split: tuple[RoleTime, ...] = ()
        """The same in numbers."""
        self._fleet = fleet
        self._emit = emit
        self._clock = clock
        self._bottleneck = Bottleneck()
        self._policy = ScalingPolicy(
            min_workers=NO_BOUNDS.min_workers,
            max_workers=NO_BOUNDS.max_workers,
            max_staleness=job.train.max_staleness,
        )
        self._decided: tuple[Bounds | None, str] = (None, "")
        """The policy's last sentence, and under which bounds."""
        self._stayed: tuple[Bounds | None, int, int] = (None, 0, 0)
        """Under which bounds the policy has left which number alone, and for how many measured steps."""
        self._advice: Decision | None = None
        """The last one that asked for a number."""

    @property
    def recommended(self) -> int:
        """Rollout workers that the last steps ask for, before any bounds; 0 before that can be told."""
        return self._advice.wanted if self._advice else 0

    @property
    def reason(self) -> str:
        """What the policy said last; without one in power, why it would recommend its number."""
        bounds, said = self._decided
        if self.sizes.bounds is None:
            return self._advice.why if self._advice else ""
        return said if bounds == self.sizes.bounds else ""

    def observe(self, metrics: Mapping[str, float], *, step: int) -> dict[str, float]:
        """`metrics` are those of the step that was just finished; returns `driver/ideal_share`."""
        hand_over_s = metrics["weights/hand_over_s"]
        adopt_s = min(metrics["weights/adopt_s"], hand_over_s)
        self._bottleneck.observe(
            StepTimes(
                step_s=metrics["driver/step_s"],
                gather_s=metrics["driver/gather_s"],
                update_s=metrics["driver/update_s"],
                publish_s=hand_over_s - adopt_s,
                adopt_s=adopt_s,
                idle_shares={
                    role: metrics[f"{role}/idle_share"]
                    for role in ("rollout", "reward", "reference")
                    if f"{role}/idle_share" in metrics
                },
            )
        )
        report = self._bottleneck.report()
        self.sentence, self.time_split = report.sentence, report.by_role
        self._scale(metrics, step=step)
        return {"driver/ideal_share": report.ideal_share}

    def _scale(self, metrics: Mapping[str, float], *, step: int) -> None:
        bounds = self.sizes.bounds
        limits = bounds or NO_BOUNDS
        self._policy.limit(min_workers=limits.min_workers, max_workers=limits.max_workers)
        decision = self._policy.decide(self._rates(metrics))
        self._decided = (bounds, decision.reason)
        if decision.wanted:
            self._advice = decision
        if bounds is None:
            return
        if decision.num_workers != self._fleet.pool.size:
            self._say(f"{decision.reason}{self.sizes.choose(decision.num_workers)}", step=step)
        elif decision.wanted and self._stays(bounds) == STAYS:
            self._say(decision.reason, step=step)

    def _stays(self, bounds: Bounds) -> int:
        size = self._fleet.pool.size
        before, num_before, num_steps = self._stayed
        is_same = (before, num_before) == (bounds, size)
        self._stayed = (bounds, size, num_steps + 1 if is_same else 1)
        return self._stayed[2]

    def _say(self, text: str, *, step: int) -> None:
        self._emit(Notice(time_s=self._clock.time(), step=step, level="info", text=f"rollout workers: {text}"))

    def _rates(self, metrics: Mapping[str, float]) -> StepRates:
        size, num_serving = self._fleet.pool.size, len(self._fleet.serving())
        learning_s = metrics["driver/update_s"] + metrics["weights/hand_over_s"]
        step_s = metrics["driver/step_s"]
        return StepRates(
            step_s=step_s,
            learner_waited_s=metrics["driver/gather_s"],
            workers_idle_s=metrics.get("rollout/idle_share", 0.0) * step_s,
            worker_tokens_per_s=metrics.get("rollout/tokens_per_s", 0.0) / max(num_serving, 1),
            learner_tokens_per_s=metrics["driver/batch_tokens"] / learning_s if learning_s > 0 else 0.0,
            longest_s=metrics["driver/longest_group_s"],
            num_workers=size,
            num_pending=abs(size - num_serving),
            num_queued=int(metrics["driver/groups_queued"]),
        )
