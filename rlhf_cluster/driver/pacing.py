"""Who waits for whom, and how many rollout workers that calls for: the policies of `flow/`, fed once a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.clock import Clock
from rlhf_cluster.flow.bottleneck import Bottleneck, StepTimes
from rlhf_cluster.flow.scaling import ScalingPolicy, StepRates
from rlhf_cluster.records.events import Event, Notice

if TYPE_CHECKING:
    from rlhf_cluster.driver.fleet import Fleet


class Pacing:
    """Observes every step; with `autoscale` in the job it also sets the size of the rollout pool."""

    def __init__(self, job: JobConfig, fleet: Fleet, *, emit: Callable[[Event], None], clock: Clock) -> None:
        self.sentence = ""
        """The bottleneck of the last steps, and what the policy made of it; for people."""
        self._fleet = fleet
        self._emit = emit
        self._clock = clock
        self._bottleneck = Bottleneck()
        self._policy: ScalingPolicy | None = None
        if job.autoscale is not None:
            self._policy = ScalingPolicy(
                min_workers=job.autoscale.min_workers,
                max_workers=job.autoscale.max_workers,
                max_staleness=job.train.max_staleness,
            )

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
        self.sentence = report.sentence
        if self._policy is not None:
            self._scale(self._policy, metrics, step=step)
        return {"driver/ideal_share": report.ideal_share}

    def _scale(self, policy: ScalingPolicy, metrics: Mapping[str, float], *, step: int) -> None:
        pool, num_serving = self._fleet.pool, len(self._fleet.serving())
        learning_s = metrics["driver/update_s"] + metrics["weights/hand_over_s"]
        step_s = metrics["driver/step_s"]
        decision = policy.decide(
            StepRates(
                step_s=step_s,
                learner_waited_s=metrics["driver/gather_s"],
                workers_idle_s=metrics.get("rollout/idle_share", 0.0) * step_s,
                worker_tokens_per_s=metrics.get("rollout/tokens_per_s", 0.0) / max(num_serving, 1),
                learner_tokens_per_s=metrics["driver/batch_tokens"] / learning_s if learning_s > 0 else 0.0,
                longest_s=metrics["driver/longest_group_s"],
                num_workers=pool.size,
                num_pending=abs(pool.size - num_serving),
                num_queued=int(metrics["driver/groups_queued"]),
            )
        )
        self.sentence += f" Autoscale: {decision.reason}."
        if decision.num_workers != pool.size:
            pool.resize(decision.num_workers)
            text = f"rollout workers: {decision.reason}"
            self._emit(Notice(time_s=self._clock.time(), step=step, level="info", text=text))
