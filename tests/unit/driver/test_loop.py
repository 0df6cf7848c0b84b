"""One training step in order, and what is due between steps."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from rlhf_cluster.driver.checkpoints import read_state
from rlhf_cluster.errors import BudgetSpent, LearnerError, StorageError
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.records.events import CheckpointSaved, Evaluated, LearnerRecovered, Notice, StepDone, WorkerChanged
from rlhf_cluster.testing import FakeLearnerRank, FakeRewardServer, fake_roles, make_job, scripted_worker, virtual_time
from rlhf_cluster.testing.faults import FaultPlan
from rlhf_cluster.testing.faulty_roles import FaultyRole
from rlhf_cluster.testing.fleet import Pace, SimulatedRuntime

ONE_STEP = ["accept", "update", "publish", "adopt"]


def story(made: Any) -> list[tuple[str, int]]:
    kinds = (StepDone, Evaluated, CheckpointSaved)
    return [(type(event).__name__, event.step) for event in made.events if type(event) in kinds]


class Around:
    """A scripted worker of which a test changes a part."""

    def __init__(self, worker_id: str = "rollout-0") -> None:
        self.worker = scripted_worker(worker_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.worker, name)


def replacement(spec: Any) -> Any:
    made = {"rollout worker": scripted_worker, "learner": lambda worker_id: FakeLearnerRank(worker_id=worker_id)}
    return made[spec.role](spec.worker_id)


def test_weights_are_adopted_first_and_every_update_is_published(stage):
    rank = FakeLearnerRank()
    made = stage(make_job(["train.num_steps=3"]), fake_roles(rank=rank))
    made.drive()
    assert rank.calls == ["start", "publish", *["update", "publish"] * 3, "save", "close"]
    assert made.transitions == ["adopt", *ONE_STEP * 3]
    assert [batch.step for batch in rank.batches] == [0, 1, 2]
    assert [event.version for event in made.seen(StepDone)] == [1, 2, 3]
    assert all(batch.staleness() == 0 for batch in rank.batches)
    assert all(group.advantages is not None for batch in rank.batches for group in batch.groups)


def test_no_prompt_is_trained_twice_and_none_is_left_out(stage):
    rank = FakeLearnerRank()
    made = stage(make_job(["train.num_steps=3", "train.max_staleness=2"]), fake_roles(rank=rank))
    made.drive()
    trained = [group.request_id for batch in rank.batches for group in batch.groups]
    assert trained == list(range(6))
    assert len({group.prompt.prompt_id for batch in rank.batches for group in batch.groups}) == 6
    assert audit(made.history, max_staleness=2).ok


def test_evaluation_comes_before_the_first_step_when_due_and_after_the_last(stage):
    made = stage(make_job(["train.num_steps=5", "evaluation.every_steps=2", "evaluation.num_prompts=2"]), num_eval=3)
    made.drive()
    assert [step for kind, step in story(made) if kind == "Evaluated"] == [0, 2, 4, 5]
    assert all(len(event.groups) == 2 for event in made.seen(Evaluated))


def test_checkpoints_are_written_when_due_and_after_the_last_step(stage):
    made = stage(make_job(["train.num_steps=5", "checkpoint.every_steps=2"]))
    made.drive()
    assert [path.path.name for path in made.seen(CheckpointSaved)] == ["step-000002", "step-000004", "step-000005"]
    assert sorted(path.name for path in (made.job_dir / "checkpoints").iterdir()) == ["step-000004", "step-000005"]


def test_a_step_that_is_due_as_the_last_one_is_saved_once(stage):
    rank = FakeLearnerRank()
    made = stage(make_job(["train.num_steps=4", "checkpoint.every_steps=2"]), fake_roles(rank=rank))
    made.drive()
    assert rank.calls.count("save") == 2


def test_only_a_checkpoint_whose_own_step_was_evaluated_can_be_the_best(stage):
    job = [
        "train.num_steps=5",
        "evaluation.every_steps=2",
        "checkpoint.every_steps=1",
        "checkpoint.keep=9",
        "checkpoint.best_by=eval/reward_mean",
    ]
    made = stage(make_job(job), num_eval=3)
    made.drive()
    evaluated = {
        event.path.name: "eval/reward_mean" in read_state(event.path)["metrics"] for event in made.seen(CheckpointSaved)
    }
    assert evaluated == {f"step-{step:06d}": step in (2, 4, 5) for step in (1, 2, 3, 4, 5)}


def test_the_best_checkpoint_does_not_keep_the_ledger_from_being_folded(stage):
    falling = itertools.count(0.0, -1.0)
    worsens = FakeRewardServer(lambda group: [next(falling) for _ in range(group.num_completions)])
    job = ["train.num_steps=9", "evaluation.every_steps=1", "checkpoint.every_steps=1", "checkpoint.keep_best=1"]
    made = stage(make_job(job), fake_roles(reward=worsens), num_eval=1)
    made.drive()
    kept = sorted(path.name for path in (made.job_dir / "checkpoints").iterdir())
    assert kept == ["step-000001", "step-000008", "step-000009"]
    assert made.history.settled.step == 8
    assert audit(made.history, max_staleness=0).ok


def test_training_goes_on_while_a_checkpoint_is_written(stage):
    written = asyncio.Event()

    class SavesSlowly(FakeLearnerRank):
        async def save(self, path, *, with_state):
            await super().save(path, with_state=with_state)
            await written.wait()

        async def update(self, algorithm, batch):
            if batch.step == 1:
                written.set()
            return await super().update(algorithm, batch)

    made = stage(make_job(["train.num_steps=2", "checkpoint.every_steps=1"]), fake_roles(rank=SavesSlowly()))
    made.drive()
    assert [event.step for event in made.seen(CheckpointSaved)] == [1, 2]


def test_a_disk_that_refuses_one_checkpoint_costs_no_step(stage):
    class RefusesOnce(FakeLearnerRank):
        async def save(self, path, *, with_state):
            if "save" not in self.calls:
                self.calls.append("save")
                raise StorageError("no space left")
            await super().save(path, with_state=with_state)

    made = stage(make_job(["train.num_steps=2", "checkpoint.every_steps=1"]), fake_roles(rank=RefusesOnce()))
    made.drive()
    assert [event.step for event in made.seen(StepDone)] == [1, 2]
    assert [event.step for event in made.seen(CheckpointSaved)] == [2]
    [notice] = made.seen(Notice)
    assert (notice.level, notice.step) == ("error", 1)
    assert "the checkpoint of step 1 was not written, the one before stays: no space left" in notice.text


def test_a_last_checkpoint_that_cannot_be_written_ends_the_job_with_an_error_and_every_batch_is_kept(stage):
    class Refuses(FakeLearnerRank):
        async def save(self, path, *, with_state):
            raise StorageError("no space left")

    with pytest.raises(StorageError, match=r"the checkpoint of step 2 could not be written .* `rlhf resume`"):
        stage(make_job(), fake_roles(rank=Refuses())).drive()
    again = FakeLearnerRank()
    made = stage(make_job(), fake_roles(rank=again))
    made.drive()
    assert again.calls == ["start", "update", "update", "publish", "save", "close"]
    assert story(made) == [("CheckpointSaved", 2)]


def test_stopping_ends_after_the_step_under_way_with_a_checkpoint(stage):
    class StopsLater(FakeLearnerRank):
        async def update(self, algorithm, batch):
            if batch.step == 1:
                made.stop.set()
            return await super().update(algorithm, batch)

    made = stage(make_job(["train.num_steps=9"]), fake_roles(rank=StopsLater()))
    made.drive()
    assert story(made) == [("StepDone", 1), ("StepDone", 2), ("CheckpointSaved", 2)]


def test_stopping_before_the_first_step_waits_for_no_evaluation_and_writes_no_copy_of_the_model(stage):
    made = stage(make_job(), num_eval=3)
    made.stop.set()
    made.drive()
    assert story(made) == []


def test_a_resumed_job_trains_on_what_it_would_have(stage, tmp_path):
    job = make_job(["train.num_steps=4"])
    whole = FakeLearnerRank()
    (tmp_path / "whole").mkdir()
    stage(job, fake_roles(rank=whole), job_dir=tmp_path / "whole").drive()

    class StopsLater(FakeLearnerRank):
        async def update(self, algorithm, batch):
            first.stop.set()
            return await super().update(algorithm, batch)

    rank, again = StopsLater(), FakeLearnerRank()
    first = stage(job, fake_roles(rank=rank))
    first.drive()
    second = stage(job, fake_roles(rank=again))
    second.drive()
    assert again.calls[:2] == ["start", "load"]
    assert [event.step for event in second.seen(StepDone)] == [2, 3, 4]
    told = [
        [(g.prompt.prompt_id, g.token_ids.tolist()) for b in batches for g in b.groups]
        for batches in (whole.batches, [*rank.batches, *again.batches])
    ]
    assert told[0] == told[1]


def test_a_job_that_is_done_and_resumed_trains_no_more(stage):
    stage(make_job()).drive()
    rank = FakeLearnerRank()
    made = stage(make_job(), fake_roles(rank=rank))
    made.drive()
    assert rank.calls == ["start", "load", "publish", "close"]
    assert story(made) == []


def test_a_step_reports_what_people_and_tests_look_at(stage):
    made = stage(make_job(["train.num_steps=1"]))
    made.drive()
    [done] = made.seen(StepDone)
    assert {
        "driver/gather_s",
        "driver/update_s",
        "driver/step_s",
        "driver/staleness_max",
        "driver/invalid_rate",
        "driver/groups_dropped",
        "driver/groups_queued",
        "weights/hand_over_s",
        "weights/adopt_s",
        "weights/probe_gap",
        "rollout/tokens_per_s",
        "rollout/idle_share",
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

    made = stage(make_job(["limits.update_s=0.05", "recovery.max_restarts=0"]), fake_roles(rank=Stuck()))
    with pytest.raises(BudgetSpent, match=r"learner learner-0 did not answer within .* updating on step 0"):
        made.drive()


def test_a_learner_that_never_answers_is_replaced_and_the_step_is_done(stage):
    class Stuck(FakeLearnerRank):
        async def update(self, algorithm, batch):
            if batch.step == 1:
                await asyncio.Event().wait()
            return await super().update(algorithm, batch)

    made = stage(make_job(["limits.update_s=0.3"]), fake_roles(rank=Stuck(), replace=replacement))
    made.drive()
    assert [event.step for event in made.seen(StepDone)] == [1, 2]
    [recovered] = made.seen(LearnerRecovered)
    assert recovered.num_replayed == 1
    assert audit(made.history, max_staleness=0).ok


class NeverAdopts(Around):
    async def adopt(self, handle):
        await asyncio.Event().wait()


def test_a_worker_that_never_adopts_is_named_with_the_version(stage):
    made = stage(make_job(["limits.weights_s=0.05", "recovery.max_restarts=0"]), fake_roles(NeverAdopts()))
    with pytest.raises(BudgetSpent, match=r"rollout worker rollout-0 .* adopting weights version 0"):
        made.drive()


def test_a_worker_that_never_adopts_is_replaced(stage):
    made = stage(make_job(["limits.weights_s=0.5"]), fake_roles(NeverAdopts(), replace=replacement))
    made.drive()
    assert [event.step for event in made.seen(StepDone)] == [1, 2]
    lost = [event for event in made.seen(WorkerChanged) if event.state == "lost"]
    assert [event.worker_id for event in lost] == ["rollout-0"]


def test_a_learner_whose_versions_do_not_go_on_is_replaced(stage):
    class Forgets(FakeLearnerRank):
        async def update(self, algorithm, batch):
            report = await super().update(algorithm, batch)
            self.version = -1
            return report

    made = stage(make_job(), fake_roles(rank=Forgets(), replace=replacement))
    made.drive()
    assert [event.version for event in made.seen(StepDone)] == [1, 2]
    [recovered] = made.seen(LearnerRecovered)
    assert "learner-0 published version -1 after 1 steps" in recovered.reason


def test_a_worker_that_does_not_tell_its_status_is_left_out_of_the_figures(stage):
    class Silent(Around):
        async def status(self):
            await asyncio.Event().wait()

    made = stage(make_job(["train.num_steps=1", "limits.status_s=0.05"]), fake_roles(Silent()))
    made.drive()
    [done] = made.seen(StepDone)
    assert "rollout/rss_gib" not in done.metrics
    assert "learner/rss_gib" in done.metrics


@pytest.mark.parametrize("how", ["fails", "is aborted"])
def test_a_job_that_ends_while_a_checkpoint_is_written_leaves_no_task_behind(stage, how):
    class Diverges(FaultyRole):
        async def update(self, algorithm, batch):
            if batch.step == 1:
                raise LearnerError("the loss is nan")
            return await self._role.update(algorithm, batch)

    def wrap(role):
        return Diverges(role, FaultPlan(seed=0)) if how == "fails" and role.role == "learner" else role

    made = stage(make_job(["checkpoint.every_steps=1"]), SimulatedRuntime(Pace(save_s=500.0), wrap=wrap))

    async def whole() -> None:
        async with made.open() as (driver, _):
            with pytest.raises(LearnerError if how == "fails" else TimeoutError):
                await asyncio.wait_for(driver.run(made.stop), 50.0)
        await made.runtime.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual_time.run(whole(), clock=made.clock)
    assert made.seen(CheckpointSaved) == made.seen(Notice) == []
