"""The head of a batch is learned while the rest is generated: when, how often, and without changing what is learned."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.algorithms import GRPO
from rlhf_cluster.errors import RoleDied
from rlhf_cluster.records.events import LearnerRecovered
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.fleet import Pace, SimulatedRank, lognormal

from .simulated_job import SimulatedJob

PROMPTS_PER_STEP = 6


class JudgesWholeBatch(GRPO):
    """Says nothing of groups that could be credited alone."""

    by_group = False


def simulated(job_dir: Path, *overrides: str, wrap: Any = lambda role: role, **sections: Any) -> SimulatedJob:
    job = make_job(
        ["train.num_steps=3", f"train.prompts_per_step={PROMPTS_PER_STEP}", "rollout.num_workers=2", *overrides],
        **sections,
    )
    job_dir.mkdir(exist_ok=True)
    return SimulatedJob(job=job, job_dir=job_dir, pace=Pace(seconds_of=lognormal(1.0, mean_s=5.0, seed=1)), wrap=wrap)


def heads(job: SimulatedJob) -> list[tuple[int, int]]:
    """Of the only learner: step and number of groups, call by call."""
    ranks: list[SimulatedRank] = []
    job.wrap = lambda role: ranks.append(role) or role if isinstance(role, SimulatedRank) else role
    job.run()
    return ranks[0].heads


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_the_learner_gets_a_head_that_grows_and_never_the_whole_batch(tmp_path, max_staleness):
    told = heads(simulated(tmp_path, f"train.max_staleness={max_staleness}"))
    steps = {step for step, _ in told}
    # What was generated during the update before may be a whole batch already.
    assert steps == {0, 1, 2} if max_staleness == 0 else 0 in steps
    assert all(0 < num_groups < PROMPTS_PER_STEP for _, num_groups in told)
    assert all(before < after for before, after in pairwise(told))


def test_nothing_is_learned_early_when_the_job_or_the_algorithm_says_so(tmp_path):
    assert heads(simulated(tmp_path / "off", "train.learn_early=false")) == []
    whole = simulated(tmp_path / "whole", algorithm={"type": f"{__name__}:JudgesWholeBatch"})
    assert heads(whole) == []


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_losses_are_the_same_with_and_without(tmp_path, max_staleness):
    losses = []
    for learn_early in ("true", "false"):
        overrides = (f"train.learn_early={learn_early}", f"train.max_staleness={max_staleness}")
        job = simulated(tmp_path / learn_early, *overrides)
        job.run()
        job.check()
        losses.append(job.losses())
    assert losses[0] == losses[1]


class DiesOnAHead:
    """Handle of a rank whose process ends in its third `accumulate`."""

    def __init__(self, rank: SimulatedRank) -> None:
        self._rank = rank

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rank, name)

    async def accumulate(self, *arguments: Any, **options: Any) -> None:
        await self._rank.accumulate(*arguments, **options)
        if len(self._rank.heads) == 3:
            self._rank.kill()
            raise RoleDied("it is gone", role="learner", worker_id=self._rank.worker_id, activity="accumulate")


def test_a_learner_that_dies_on_a_head_is_replaced_and_learns_what_it_would_have(tmp_path):
    undisturbed = simulated(tmp_path / "undisturbed")
    undisturbed.run()
    first: list[SimulatedRank] = []

    def wrap(role: Any) -> Any:
        if not isinstance(role, SimulatedRank) or first:
            return role
        first.append(role)
        return DiesOnAHead(role)

    job = simulated(tmp_path / "disturbed", wrap=wrap)
    job.run()
    job.check()
    assert first[0].death is not None
    assert len([event for event in job.events if isinstance(event, LearnerRecovered)]) == 1
    assert job.losses() == undisturbed.losses()
