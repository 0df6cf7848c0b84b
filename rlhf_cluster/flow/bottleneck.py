"""Who waited for whom over the last steps: measured durations in, shares and one sentence out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlhf_cluster.records.members import RoleTime

WORTH_NAMING = 0.05
"""A smaller share of the time is nobody's bottleneck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """One step as the driver measured it, in seconds; what its parts leave of it is `other`."""

    step_s: float
    gather_s: float
    """The learner waited for rollouts."""
    update_s: float
    publish_s: float
    adopt_s: float
    idle_shares: Mapping[str, float] = field(default_factory=dict)
    """By role, the share of the step that its replicas had nothing to do, on average, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleneckReport:
    shares: Mapping[str, float]
    """Of the time: `gather`, `update`, `publish`, `adopt` and `other`, which sum to 1, and `<role> idle`."""
    sentence: str
    ideal_share: float
    """How close the steps come to the bound that the busiest role sets, 0 to 1: its busy share. At 1 it never waits,
    and only more of that role, or less work for it, makes the job faster."""
    by_role: tuple[RoleTime, ...] = ()
    """The shares once more, the learner first."""


class Bottleneck:
    """The last `window` steps."""

    def __init__(self, *, window: int = 20) -> None:
        if window < 1:
            raise ValueError(f"window = {window} must be at least 1")
        self._steps: deque[StepTimes] = deque(maxlen=window)

    def observe(self, step: StepTimes) -> None:
        self._steps.append(step)

    def report(self) -> BottleneckReport:
        """Long steps weigh more than short ones."""
        total_s = sum(step.step_s for step in self._steps)
        if total_s <= 0:
            return BottleneckReport(shares={}, sentence="No step is finished yet.", ideal_share=0.0)
        parts = {name: self._share(f"{name}_s", total_s) for name in ("gather", "update", "publish", "adopt")}
        parts["other"] = max(0.0, 1.0 - sum(parts.values()))
        idle = self._idle_shares()
        busy = {role: 1.0 - share for role, share in idle.items()} | {"learner": parts["update"] + parts["publish"]}
        return BottleneckReport(
            shares=parts | {f"{role} idle": share for role, share in idle.items()},
            sentence=f"Over the last {_steps(len(self._steps))} {_findings(parts, idle)}.",
            ideal_share=min(1.0, max(busy.values())),
            by_role=_by_role(parts, idle),
        )

    def _share(self, name: str, total_s: float) -> float:
        return sum(getattr(step, name) for step in self._steps) / total_s

    def _idle_shares(self) -> dict[str, float]:
        """By role, over the steps in which it was measured."""
        shares = {}
        for role in sorted({role for step in self._steps for role in step.idle_shares}):
            measured = [step for step in self._steps if role in step.idle_shares]
            measured_s = sum(step.step_s for step in measured)
            idle_s = sum(step.idle_shares[role] * step.step_s for step in measured)
            shares[role] = idle_s / measured_s if measured_s > 0 else 0.0
        return shares


def _by_role(parts: Mapping[str, float], idle: Mapping[str, float]) -> tuple[RoleTime, ...]:
    learner = RoleTime(
        role="learner",
        busy=parts["update"] + parts["publish"],
        waiting=parts["gather"],
        adopting=parts["adopt"],
        other=parts["other"],
    )
    return (learner, *(RoleTime(role=role, busy=1.0 - share, waiting=share) for role, share in idle.items()))


def _steps(number: int) -> str:
    return f"{number} steps" if number > 1 else "step"


def _findings(parts: Mapping[str, float], idle: Mapping[str, float]) -> str:
    waited, handed_over = parts["gather"], parts["publish"] + parts["adopt"]
    rollout_idle = idle.get("rollout")
    said = [f"the learner waited for rollouts {waited:.0%} of the time"]
    if rollout_idle is not None:
        said.append(f"rollout workers were idle {rollout_idle:.0%}")
    said += [f"the {role} role was idle {share:.0%}" for role, share in idle.items() if role != "rollout"]
    if handed_over >= WORTH_NAMING:
        said.append(f"handing over weights took {handed_over:.0%}")
    return ", ".join(said) + ": " + _culprit(waited, handed_over, rollout_idle)


def _culprit(waited: float, handed_over: float, rollout_idle: float | None) -> str:
    if handed_over > max(waited, rollout_idle or 0.0, WORTH_NAMING):
        return "the weights' way to the workers holds the job up"
    if waited < WORTH_NAMING:
        return "the learner sets the pace"
    if rollout_idle is None or rollout_idle < WORTH_NAMING:
        return "the rollout workers set the pace"
    if rollout_idle > 0.5 and waited > 0.5:
        return "both wait for something else, such as rewards or one long completion"
    return "both wait in turn, so more staleness would let them overlap"
