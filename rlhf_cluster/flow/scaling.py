"""How many rollout workers a job should have: measured rates in, a number and one sentence out.

With rollouts ahead of the learner, the answer is the least number of workers that keeps the learner busy: tokens a
second that the learner can take over tokens a second that one worker makes, with headroom.

In synchronous mode the learner waits for every gather, however many workers there are, and a worker more only shortens
what is spread over all of them; the longest completion is a floor (Amdahl's law). There workers are added for as long
as one more makes the whole step at least `WORTH_SHARE` shorter.

A pool changes only after several steps in a row that agree, and never while a change is under way: a worker takes
minutes to start, and a rate is noisy.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from statistics import median

WORTH_SHARE = 0.02
"""A synchronous step must become this much shorter by a worker for it to be worth having."""
BUSY_SHARE = 0.02
"""A learner that waits for less of a step is busy: nothing is gained by more workers."""
IDLE_SHARE = 0.02
"""Workers that wait for less of a step are busy: none of them is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRates:
    """One step as it was measured."""

    step_s: float
    learner_waited_s: float
    """For rollouts."""
    workers_idle_s: float
    """Without anything to generate, on average over the workers."""
    worker_tokens_per_s: float
    """Of one worker with work, on average over the workers; 0 when it was not measured."""
    learner_tokens_per_s: float
    """Tokens of the step over the seconds the learner needed for it, the publishing included; 0 when not measured."""
    longest_s: float
    """The longest completion of the step: no gather of a synchronous step is shorter."""
    num_workers: int
    """Serving."""
    num_pending: int = 0
    """Asked for and not serving yet, or draining."""
    num_queued: int = 0
    """Complete groups waiting for the learner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    num_workers: int
    """To have from now on; the present number means to stay."""
    reason: str
    """One sentence, also for staying."""
    wanted: int = 0
    """What the steps ask for, before limits and before it has lasted; 0 where they say nothing."""
    why: str = ""
    """Why so many, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    num_workers: int
    """Before any limit."""
    why: str


class ScalingPolicy:
    """Call `decide` once a step."""

    def __init__(
        self,
        *,
        min_workers: int,
        max_workers: int,
        max_staleness: int,
        window: int = 10,
        up_after: int = 3,
        down_after: int = 10,
        headroom: float = 0.1,
    ) -> None:
        """Rates are medians over the last `window` steps; the pool grows after `up_after` and shrinks after
        `down_after` steps in a row that agree. `headroom` 0.1 means a tenth more than the learner can take."""
        if min(window, up_after, down_after) < 1 or headroom < 0:
            raise ValueError(
                f"window = {window}, up_after = {up_after} and down_after = {down_after} must be at least 1, and "
                f"headroom = {headroom:g} at least 0"
            )
        self.limit(min_workers=min_workers, max_workers=max_workers)
        self._is_synchronous = max_staleness == 0
        self._up_after = up_after
        self._down_after = down_after
        self._headroom = headroom
        self._steps: deque[StepRates] = deque(maxlen=window)
        self._direction = 0
        self._num_agreeing = 0

    def limit(self, *, min_workers: int, max_workers: int) -> None:
        """Other limits from now on; what was measured still counts."""
        if not 1 <= min_workers <= max_workers:
            raise ValueError(f"min_workers = {min_workers} must be 1 to max_workers = {max_workers}")
        self._min_workers = min_workers
        self._max_workers = max_workers

    def decide(self, step: StepRates) -> Decision:
        """What to have after this step."""
        now = step.num_workers
        if step.num_pending:
            self._forget()
            noun = "worker is" if step.num_pending == 1 else "workers are"
            return Decision(num_workers=now, reason=f"stay at {now}: {step.num_pending} {noun} still coming or going")
        if self._steps and self._steps[-1].num_workers != now:
            # Waits and gathers of a pool of another size say nothing of this one.
            self._forget()
        if not self._min_workers <= now <= self._max_workers:
            self._forget()
            return self._back_within_limits(now)
        if min(step.worker_tokens_per_s, step.learner_tokens_per_s, step.step_s) <= 0:
            return Decision(num_workers=now, reason=f"stay at {now}: this step's rates were not measured")
        self._steps.append(step)
        return self._weigh(now, self._synchronous_wish(now) if self._is_synchronous else self._demand())

    def _demand(self) -> _Wish:
        learner, worker = self._median("learner_tokens_per_s"), self._median("worker_tokens_per_s")
        wanted = _least_above(learner * (1 + self._headroom) / worker)
        why = (
            f"the learner can take {learner:,.0f} tokens/s and one worker makes {worker:,.0f}, which with "
            f"{self._headroom:.0%} headroom asks for {wanted}"
        )
        return _Wish(num_workers=wanted, why=why)

    def _synchronous_wish(self, now: int) -> _Wish:
        gather_s, step_s = self._median("learner_waited_s"), self._median("step_s")
        floor_s = min(self._median("longest_s"), gather_s)
        shared_s = (gather_s - floor_s) * now
        """What all workers together did; each of W gets a W-th of it."""
        rest_s = max(0.0, step_s - gather_s) + floor_s
        wanted = 1
        while _gain(shared_s, rest_s, wanted + 1) >= WORTH_SHARE:
            wanted += 1
        why = (
            f"in synchronous mode the learner waits {gather_s:.3g} s of a {step_s:.3g} s step, of which the longest "
            f"completion takes {floor_s:.3g} s, and worker {wanted + 1} would shorten the step by "
            f"{_gain(shared_s, rest_s, wanted + 1):.1%}, which asks for {wanted}"
        )
        return _Wish(num_workers=wanted, why=why)

    def _weigh(self, now: int, wish: _Wish) -> Decision:
        """A wish becomes a change when it is within the limits, when who waits agrees, and when it has lasted."""
        target = min(max(wish.num_workers, self._min_workers), self._max_workers)
        why = wish.why + self._limit(wish.num_workers, target)
        advice = self._advice(now, wish)
        objection = self._objection(now, target)
        if target == now or objection:
            self._agree(0)
            return replace(advice, reason=f"stay at {now}: {why}{objection}")
        direction = 1 if target > now else -1
        needed = self._up_after if direction > 0 else self._down_after
        if self._agree(direction) < needed:
            return replace(advice, reason=f"stay at {now}: {why}; seen {self._num_agreeing} of {needed} times in a row")
        # What was measured is forgotten once the pool has changed; where nobody lets it change, it counts on.
        self._agree(0)
        # Up at once to twice the size, for a waiting learner is dear; down by a quarter, for a mistake is.
        reached = min(target, 2 * now) if direction > 0 else max(target, now - max(1, now // 4))
        verb = "grow" if direction > 0 else "shrink"
        return replace(advice, num_workers=reached, reason=f"{verb} from {now} to {reached}: {why}")

    def _advice(self, now: int, wish: _Wish) -> Decision:
        """To stay, with what the steps ask for where no limit is set."""
        objection = self._objection(now, wish.num_workers)
        wanted = now if objection else wish.num_workers
        return Decision(num_workers=now, reason="", wanted=wanted, why=wish.why + objection)

    def _objection(self, now: int, target: int) -> str:
        """Rates are estimates; who waited for whom is what happened. Synchronous roles wait in turn by design."""
        if self._is_synchronous or target == now:
            return ""
        step_s = self._median("step_s")
        waited, idle = self._median("learner_waited_s") / step_s, self._median("workers_idle_s") / step_s
        if target > now and waited < BUSY_SHARE:
            queued = f", with {self._steps[-1].num_queued} groups queued for it"
            return f"; but the learner waits for only {waited:.1%} of a step{queued}"
        if target < now and waited >= BUSY_SHARE:
            return f"; but the learner already waits for {waited:.1%} of a step"
        if target < now and idle < IDLE_SHARE:
            return f"; but the workers are idle for only {idle:.1%} of a step"
        return ""

    def _limit(self, wanted: int, target: int) -> str:
        if wanted > target:
            return f"; max_workers = {self._max_workers}"
        return f"; min_workers = {self._min_workers}" if wanted < target else ""

    def _back_within_limits(self, now: int) -> Decision:
        if now < self._min_workers:
            reason = f"grow from {now} to {self._min_workers}: min_workers = {self._min_workers}"
            return Decision(num_workers=self._min_workers, reason=reason)
        reason = f"shrink from {now} to {self._max_workers}: max_workers = {self._max_workers}"
        return Decision(num_workers=self._max_workers, reason=reason)

    def _agree(self, direction: int) -> int:
        """How often in a row the observations have pointed this way."""
        self._num_agreeing = self._num_agreeing + 1 if direction == self._direction else 1
        self._direction = direction
        return self._num_agreeing

    def _forget(self) -> None:
        self._steps.clear()
        self._direction = self._num_agreeing = 0

    def _median(self, name: str) -> float:
        return median(getattr(step, name) for step in self._steps)


def _gain(shared_s: float, rest_s: float, num_workers: int) -> float:
    """The share by which the last of `num_workers` workers shortens a synchronous step."""
    before_s = rest_s + shared_s / (num_workers - 1)
    return (before_s - rest_s - shared_s / num_workers) / before_s if before_s > 0 else 0.0


def _least_above(quotient: float) -> int:
    """Rounded up; the hair's breadth undoes binary rounding, which would ask for a worker too many."""
    return max(1, math.ceil(quotient - 1e-9))
