"""One training step in order, and what is due between steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlhf_cluster.errors import RoleTimeout, StaleVersion
from rlhf_cluster.records.events import CheckpointSaved, Evaluated, StepDone
from rlhf_cluster.testing import FakeLearnerRank, fake_roles, make_job, scripted_worker

BOUND_S = 20.0


def drive(made: Any, stop: asyncio.Event | None = None) -> None:
    async def whole() -> None:
        try:
            await asyncio.wait_for(made.driver.run(stop or asyncio.Event()), BOUND_S)
        finally:
            await made.close()

    asyncio.run(whole())


def story(made: Any) -> list[tuple[str, int]]:
    kinds = (StepDone, Evaluated, CheckpointSaved)
    return [(type(event).__name__, event.step) for event in made.events if type(event) in kinds]


def test_weights_are_adopted_first_and_every_update_is_published(stage):
    rank = FakeLearnerRank()
    made = stage(make_job(["train.num_steps=3"]), fake_roles(rank=rank))
    drive(made)
    assert rank.calls == ["publish", *["update", "publish"] * 3, "save"]
    assert [batch.step for batch in rank.batches] == [0, 1, 2]
    assert [event.version for event in made.seen(StepDone)] == [1, 2, 3]
    assert all(batch.staleness() == 0 for batch in rank.batches)
    assert all(group.advantages is not None for batch in rank.batches for group in batch.groups)


def test_no_prompt_is_trained_twice_and_none_is_left_out(stage):
    rank = FakeLearnerRank()
    drive(stage(make_job(["train.num_steps=3", "train.max_staleness=2"]), fake_roles(rank=rank)))
    trained = [group.request_id for batch in rank.batches for group in batch.groups]
    assert trained == list(range(6))
    assert len({group.prompt.prompt_id for batch in rank.batches for group in batch.groups}) == 6


def test_evaluation_comes_before_the_first_step_when_due_and_after_the_last(stage):
    made = stage(make_job(["train.num_steps=5", "evaluation.every_steps=2", "evaluation.num_prompts=2"]), num_eval=3)
    drive(made)
    assert [step for kind, step in story(made) if kind == "Evaluated"] == [0, 2, 4, 5]
    assert all(len(event.groups) == 2 for event in made.seen(Evaluated))


def test_checkpoints_are_written_when_due_and_after_the_last_step(stage):
    made = stage(make_job(["train.num_steps=5", "checkpoint.every_steps=2"]))
    drive(made)
    assert [step for kind, step in story(made) if kind == "CheckpointSaved"] == [2, 4, 5]
    assert [path.name for path in made.driver.checkpoints.saved()] == ["step-000004", "step-000005"]


def test_stopping_ends_after_the_step_under_way_with_a_checkpoint(stage):
    stop = asyncio.Event()

    class StopsLater(FakeLearnerRank):
        async def update(self, algorithm, batch):
            if batch.step == 1:
                stop.set()
            return await super().update(algorithm, batch)

    made = stage(make_job(["train.num_steps=9"]), fake_roles(rank=StopsLater()))
    drive(made, stop)
    assert story(made) == [("StepDone", 1), ("StepDone", 2), ("CheckpointSaved", 2)]


def test_stopping_before_the_first_step_does_not_wait_for_the_evaluation(stage):
    stop = asyncio.Event()
    stop.set()
    made = stage(make_job(), num_eval=3)
    drive(made, stop)
    assert story(made) == []


def test_a_step_reports_what_people_and_tests_look_at(stage):
    made = stage(make_job(["train.num_steps=1"]))
    drive(made)
    [done] = made.seen(StepDone)
    assert {
        "driver/gather_s",
        "driver/step_s",
        "driver/staleness_max",
        "driver/invalid_rate",
        "driver/groups_dropped",
        "weights/publish_s",
        "weights/adopt_s",
        "weights/probe_gap",
        "rollout/tokens_per_s",
        "rollout/completion_length_mean",
        "rollout/truncated_rate",
        "reward/mean",
        "reward/fake",
        "learner/loss",
    } <= set(done.metrics)
    assert done.metrics["reward/mean"] == 0.5
    assert len(done.groups) == 2


def test_a_learner_that_never_answers_is_named_with_the_step(stage):
    class Stuck(FakeLearnerRank):
        async def update(self, algorithm, batch):
            await asyncio.Event().wait()

    made = stage(make_job(["limits.update_s=0.05"]), fake_roles(rank=Stuck()))
    with pytest.raises(RoleTimeout, match=r"learner learner-0 did not answer within .* updating on step 0"):
        drive(made)


def test_a_worker_that_never_adopts_is_named_with_the_version(stage):
    class Stuck:
        worker_id = "rollout-7"

        async def adopt(self, handle):
            await asyncio.Event().wait()

        async def close(self) -> None:
            pass

    made = stage(make_job(["limits.weights_s=0.05"]), fake_roles(scripted_worker(), Stuck()))
    with pytest.raises(RoleTimeout, match=r"rollout worker rollout-7 .* adopting weights version 0"):
        drive(made)


def test_a_learner_that_goes_back_a_version_is_refused_by_the_workers(stage):
    class Forgets(FakeLearnerRank):
        async def update(self, algorithm, batch):
            report = await super().update(algorithm, batch)
            self.version = -1
            return report

    made = stage(make_job(), fake_roles(rank=Forgets()))
    with pytest.raises(StaleVersion, match="versions never go back"):
        drive(made)


def test_a_worker_that_stops_telling_its_status_is_named(stage, monkeypatch):
    worker = scripted_worker()

    async def silent() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(worker, "status", silent)
    made = stage(make_job(["limits.status_s=0.05"]), fake_roles(worker))
    with pytest.raises(RoleTimeout, match=r"rollout rollout-0 .* telling its status"):
        drive(made)
