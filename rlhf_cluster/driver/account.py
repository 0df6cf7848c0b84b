"""How far a generating task has come, and what failed on the way: told as events, and bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from rlhf_cluster.driver.workbench import Workbench
from rlhf_cluster.flow.invalid_rate import InvalidRate
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.records.events import Generated, Phase, RewardFailed
from rlhf_cluster.rewards.sample import Outcome
from rlhf_cluster.rewards.server import with_rewards

NUM_TOLD = 20
"""Times that progress is told, at most, until all prompts are done."""


class Account:
    """Tells `Generated` now and then, with figures that `metrics` gives."""

    def __init__(
        self, bench: Workbench, *, task: str, path: Path, num_total: int, metrics: Callable[[], Mapping[str, float]]
    ) -> None:
        self._bench = bench
        self._task = task
        self._path = path
        self._num_total = num_total
        self._metrics = metrics
        self.num_done = 0
        """Prompts."""
        self._num_told = -1

    def begin(self, phase: str, *, num_done: int) -> None:
        """`num_done` is what a former driver of the job has done."""
        self.num_done = num_done
        self._bench.emit(Phase(time_s=self._bench.clock.time(), step=self._bench.step, name=phase))

    def advance(self, num_prompts: int) -> None:
        told = self.num_done * NUM_TOLD // self._num_total
        self.num_done += num_prompts
        if self.num_done * NUM_TOLD // self._num_total > told:
            self.tell()

    def end(self) -> None:
        """Tell once more, unless all that is done has been told."""
        if self._num_told != self.num_done:
            self.tell()

    def tell(self) -> None:
        self._num_told = self.num_done
        self._bench.emit(
            Generated(
                time_s=self._bench.clock.time(),
                step=self._bench.step,
                task=self._task,
                num_done=self.num_done,
                num_total=self._num_total,
                metrics=self._metrics(),
                path=self._path,
            )
        )


class Failures:
    """Counts what failed, tells of each, and stops a job in which too much does."""

    def __init__(self, bench: Workbench) -> None:
        servers = bench.job.reward_server
        self.num_groups = 0
        """Groups of which something failed."""
        self._bench = bench
        self._rate = InvalidRate(max_rate=servers.max_invalid_rate, window=servers.invalid_window)

    def observe(self, group: RolloutGroup) -> None:
        """A scored group. Raises `TooManyInvalid`."""
        self._rate.observe(group)
        self.num_groups += bool(group.invalid)
        for invalid in group.invalid:
            self._bench.emit(
                RewardFailed(
                    time_s=self._bench.clock.time(),
                    step=self._bench.step,
                    request_id=group.request_id,
                    prompt_id=group.prompt.prompt_id,
                    invalid=invalid,
                )
            )
        self._rate.check()

    def observe_outcome(self, group: RolloutGroup, outcome: Outcome, *, of: str) -> None:
        """What a judge or critic, called `of`, made of the whole group. Raises `TooManyInvalid`."""
        bare = group.select(np.arange(group.num_completions) == 0)
        self.observe(with_rewards(bare, {of: [outcome]}, weights={of: 1.0}))
