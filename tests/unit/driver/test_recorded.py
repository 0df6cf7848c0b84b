"""Batches out of recorded data: every example in order, scored once, whatever dies. Simulated roles, real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhf_cluster.driver.loop import Driver
from rlhf_cluster.errors import DataError
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.records.events import GroupDropped, LearnerRecovered, StepDone
from rlhf_cluster.testing import make_group, make_job
from rlhf_cluster.testing.faults import FaultPlan
from rlhf_cluster.testing.faulty_roles import FaultyRole
from rlhf_cluster.testing.fleet import Pace, SimulatedRank, SimulatedRuntime, SimulatedScorer

DPO = ["algorithm.type=dpo", "train.num_steps=4", "train.prompts_per_step=2", "rewards=[]", "checkpoint.keep=9"]
REWARD_MODEL = ["algorithm.type=reward_model", *DPO[1:]]


class Pairs:
    """Recorded pairs in the order of their rows, those of the rows in `ties` undecided."""

    def __init__(self, num_rows: int, *, ties: tuple[int, ...] = ()) -> None:
        self.num_rows = num_rows
        self._ties = ties

    def __getitem__(self, number: int) -> RolloutGroup:
        epoch, row = divmod(number, self.num_rows)
        group = make_group([2 + row, 3], request_id=row)
        rewards = [0.5, 0.5] if row in self._ties else [1.0, 0.0]
        return replace(
            group,
            request_id=number,
            prompt=replace(group.prompt, prompt_id=f"{row}/{epoch}"),
            rewards=np.array(rewards, np.float32),
            versions=np.zeros(0, np.int32),
            reference_logprobs=None,
            advantages=None,
        )


@pytest.fixture
def recorded(stage) -> Callable[..., Any]:
    """A stage whose job learns from `pairs`."""

    def build(pairs: Pairs, *settings: str, runtime: Any = None, job: list[str] | None = None, **options: Any) -> Any:
        made = stage(make_job([*(job or DPO), *settings]), runtime or SimulatedRuntime(), **options)
        made.prompts = replace(made.prompts, train=pairs)
        return made

    return build


def batches(made: Any) -> list[tuple[int, ...]]:
    steps = made.history.steps
    return [steps[step].accepted.request_ids for step in sorted(steps)]


def losses(made: Any) -> list[float]:
    return [event.metrics["learner/loss"] for event in made.seen(StepDone)]


def num_scored(made: Any) -> int:
    """Tokens that reference scorers were asked for."""
    return sum(role.tokens_total for role in made.runtime.opened if isinstance(role, SimulatedScorer))


def test_examples_come_in_the_order_of_their_stream_epoch_after_epoch(recorded):
    made = recorded(Pairs(3))
    made.drive()
    assert batches(made) == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert audit(made.history, max_staleness=0, num_steps=4).ok


def test_what_teaches_nothing_is_passed_over_and_told_with_the_reason(recorded):
    made = recorded(Pairs(4, ties=(1,)))
    made.drive()
    assert batches(made) == [(0, 2), (3, 4), (6, 7), (8, 10)]
    dropped = [(event.request_id, event.step, event.reason) for event in made.seen(GroupDropped)]
    assert dropped == [(1, 0, "zero_variance"), (5, 2, "zero_variance"), (9, 3, "zero_variance")]
    in_ledger = {number: life.reason for number, life in made.history.lives.items() if life.reason}
    assert in_ledger == dict.fromkeys((1, 5, 9), "zero_variance")
    assert audit(made.history, max_staleness=0, num_steps=4).ok


@pytest.mark.parametrize("per_step", [2, 5], ids=["a batch below an epoch", "a batch above an epoch"])
def test_a_row_is_scored_once_in_a_job(recorded, per_step):
    pairs = Pairs(3)
    made = recorded(pairs, f"train.prompts_per_step={per_step}")
    made.drive()
    assert num_scored(made) == sum(pairs[row].num_tokens for row in range(3))
    groups = [group for event in made.seen(StepDone) for group in event.groups]
    assert len(groups) == 4 * per_step
    assert all(np.array_equal(group.reference_logprobs, group.logprobs) for group in groups)


def test_a_job_of_less_than_an_epoch_keeps_no_scores(recorded):
    made = recorded(Pairs(8))
    made.drive()
    assert not list(made.job_dir.rglob("reference-*.log"))


def test_the_next_batch_is_scored_while_this_one_is_learned(recorded):
    made = recorded(Pairs(8), runtime=SimulatedRuntime(Pace(score_s=10.0, update_s=10.0)))
    made.drive()
    assert made.clock.monotonic() < 4 * 10.0 + 10.0 + 5.0


def test_nothing_is_learned_while_the_job_is_paused(recorded):
    made = recorded(Pairs(8))

    async def pause_and_go_on(driver: Driver, roles: Any) -> None:
        driver.feed.pause()
        running = asyncio.create_task(driver.run(made.stop))
        await asyncio.sleep(100)
        assert driver.step == 0
        assert not made.history.steps
        driver.feed.go_on()
        await running

    made.play(pause_and_go_on)
    assert [event.step for event in made.seen(StepDone)] == [1, 2, 3, 4]


def test_a_job_that_was_stopped_goes_on_with_the_next_example(recorded, tmp_path):
    (tmp_path / "whole").mkdir()
    pairs = Pairs(3, ties=(0,))
    whole = recorded(pairs, job_dir=tmp_path / "whole")
    whole.drive()
    first = recorded(pairs)
    first.at = lambda transition: first.stop.set() if transition == "publish" else None
    first.drive()
    assert len(first.seen(StepDone)) == 1
    second = recorded(pairs)
    second.drive()
    assert losses(first) + losses(second) == losses(whole)
    assert batches(second) == batches(whole)
    assert audit(second.history, max_staleness=0, num_steps=4).ok


class Crash(Exception):
    pass


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("transition", ["accept", "update", "publish"])
def test_a_driver_that_ends_anywhere_is_followed_by_one_that_makes_the_same_batches(
    recorded, tmp_path, transition, number
):
    (tmp_path / "whole").mkdir()
    pairs = Pairs(3, ties=(1,))
    whole = recorded(pairs, job_dir=tmp_path / "whole")
    whole.drive()
    seen: list[str] = []

    def at(name: str) -> None:
        seen.append(name)
        if name == transition and seen.count(name) == number + 1:
            raise Crash

    broken = recorded(pairs)
    broken.at = at
    with pytest.raises(Crash):
        broken.drive()
    resumed = recorded(pairs)
    resumed.drive()
    steps = resumed.history.steps
    assert batches(resumed) == batches(whole)
    assert [steps[step].accepted.digest for step in steps] == [
        whole.history.steps[step].accepted.digest for step in steps
    ]
    assert audit(resumed.history, max_staleness=0, num_steps=4).ok


def test_data_that_teaches_nothing_at_all_is_refused_with_the_reasons(recorded):
    made = recorded(Pairs(2, ties=(0, 1)), "limits.dropped_groups=2")
    with pytest.raises(DataError, match=r"2 examples of data.train .* teach nothing \(zero_variance 2 times\)"):
        made.drive()


class DiesAtUpdate(FaultyRole):
    """At its first update after one step."""

    def __getattr__(self, name: str) -> Any:
        if name == "update" and self._role.version == 1:
            self._role.kill()
        return super().__getattr__(name)


def test_a_learner_that_is_lost_before_anything_was_published_publishes_nothing(recorded):
    def first_dies(role: Any) -> Any:
        is_first = isinstance(role, SimulatedRank) and role.worker_id == "learner-0"
        return DiesAtUpdate(role, FaultPlan(seed=0)) if is_first else role

    made = recorded(Pairs(8), runtime=SimulatedRuntime(wrap=first_dies), job=REWARD_MODEL)
    made.drive()
    [recovered] = made.seen(LearnerRecovered)
    assert recovered.step == 1
    assert made.history.published == {}
    assert [event.step for event in made.seen(StepDone)] == [1, 2, 3, 4]
    assert audit(made.history, max_staleness=0, num_steps=4).ok
