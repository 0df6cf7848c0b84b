"""Guards in a driver: what they see is told, a stop ends the job with a checkpoint, a refused step leaves a file."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhf_cluster.driver.guard_memory import FILE_NAME, read_memory
from rlhf_cluster.driver.refused import with_culprits_kept
from rlhf_cluster.errors import ConfigError, StepRefused
from rlhf_cluster.records import Batch, StepReport
from rlhf_cluster.records.events import CheckpointSaved, Evaluated, GuardTripped, Notice, StepDone
from rlhf_cluster.rewards.server import with_rewards
from rlhf_cluster.testing import FakeLearnerRank, FakeRewardServer, fake_roles, make_group, make_job

REWARDS = [{"function": "word_world", "name": "fake"}, {"function": "word_world", "name": "gold", "weight": 0}]
PROMPTS = {"type": "procedural", "name": "word_world"}
HACKABLE: dict[str, Any] = {"rewards": REWARDS, "data": {"train": PROMPTS, "eval": PROMPTS}}
JUDGED = ["train.num_steps=9", "evaluation.every_steps=1", "guards.judge=gold"]


class Reports(FakeLearnerRank):
    """A learner whose steps report the values of one figure, one after another."""

    def __init__(self, name: str, *values: float) -> None:
        super().__init__()
        self.name, self.values = name, values

    async def update(self, algorithm: Any, batch: Batch) -> StepReport:
        report = await super().update(algorithm, batch)
        return replace(report, metrics={**report.metrics, self.name: self.values[batch.step]})


class Hackable(FakeRewardServer):
    """Pays for the version that generated; the judge rises until version 2 and falls from there."""

    async def score(self, groups: Any) -> Any:
        return tuple(map(self._scored, groups))

    def _scored(self, group: Any) -> Any:
        version, numbers = group.oldest_version, np.arange(group.num_completions)
        scores = {"fake": (version + numbers).tolist(), "gold": (numbers - abs(version - 2)).tolist()}
        return with_rewards(group, scores, weights={"fake": 1.0, "gold": 0.0})


def hackable(stage: Any, *overrides: str) -> Any:
    return stage(make_job([*JUDGED, *overrides], **HACKABLE), fake_roles(reward=Hackable()), num_eval=3)


def test_a_runaway_ends_the_job_after_its_step_with_a_checkpoint(stage):
    rank = Reports("learner/kl", 0.1, 3.0, 4.0, 5.0)
    made = stage(make_job(["train.num_steps=4", "guards.kl_steps=2"]), fake_roles(rank=rank))
    made.drive()
    assert [event.step for event in made.seen(StepDone)] == [1, 2, 3]
    assert [event.step for event in made.seen(CheckpointSaved)] == [3]
    [tripped] = made.seen(GuardTripped)
    assert (tripped.guard, tripped.deed, tripped.level, tripped.step) == ("kl_runaway", "stop", "error", 3)
    assert tripped.text.startswith("guard kl_runaway: the KL to the reference was above max_kl = 2 nats/token in the")


def test_what_is_only_warned_about_is_told_once_until_it_is_well_again(stage):
    rank = Reports("learner/kl", 3.0, 4.0, 0.1, 5.0, 5.0)
    job = make_job(["train.num_steps=5", "guards.kl_steps=1", "guards.on_kl_runaway=warn"])
    made = stage(job, fake_roles(rank=rank))
    made.drive()
    assert [(event.step, event.level) for event in made.seen(GuardTripped)] == [(1, "warning"), (4, "warning")]
    assert len(made.seen(StepDone)) == 5


def test_entropy_that_collapses_is_warned_about(stage):
    rank = Reports("learner/entropy", 2.0, 2.0, 0.3, 0.1, 0.1)
    made = stage(make_job(["train.num_steps=5", "guards.drift_steps=2"]), fake_roles(rank=rank))
    made.drive()
    [tripped] = made.seen(GuardTripped)
    assert (tripped.guard, tripped.step) == ("entropy", 5)
    assert "has fallen to 0.1 nats/token over 2 steps from 2 at first" in tripped.text


def test_hacking_ends_the_job_while_the_training_reward_still_rises(stage):
    made = hackable(stage)
    made.drive()
    judged = [event.metrics["eval/reward/gold"] for event in made.seen(Evaluated)]
    paid = [event.metrics["eval/reward_mean"] for event in made.seen(Evaluated)]
    assert judged == [-0.5, 0.5, 1.5, 0.5]
    assert paid == [1.5, 2.5, 3.5, 4.5]
    assert [event.step for event in made.seen(CheckpointSaved)] == [3]
    [tripped] = made.seen(GuardTripped)
    assert tripped.guard == "reward_hacking"
    assert "since step 2 the training reward has risen by 1 ± 0 and the judge 'gold' has fallen from 1.5 to 0.5" in (
        tripped.text
    )


def test_a_resumed_job_knows_what_its_judge_liked_before(stage):
    hackable(stage).drive()
    again = hackable(stage)
    again.drive()
    assert [event.step for event in again.seen(GuardTripped)] == [3], "at the evaluation before the first step"
    assert again.seen(StepDone) == []


def test_what_the_guards_remember_is_read_as_it_was_written(stage, tmp_path):
    hackable(stage).drive()
    memory = read_memory(tmp_path, step=3)
    assert [each.step for each in memory.judgements] == [0, 1, 2, 3]
    assert memory.judgements[2].judge_P.tolist() == [1.5] * 3
    assert memory.first["rollout/completion_length_mean"] == memory.last["rollout/completion_length_mean"]
    assert len(memory.first["rollout/repetition"]) == 3


def test_a_memory_that_cannot_be_read_is_told_about_and_ends_no_job(stage, tmp_path):
    hackable(stage, "guards.on_hacking=off").drive()
    (tmp_path / FILE_NAME).write_text("torn{")
    again = hackable(stage, "guards.on_hacking=off")
    again.drive()
    [notice] = again.seen(Notice)
    assert notice.level == "warning"
    assert notice.text.startswith("guards.json cannot be read: ")


class Refuses(FakeLearnerRank):
    async def update(self, algorithm: Any, batch: Batch) -> StepReport:
        if batch.step == 1:
            text = "step 1: the loss is nan; the step was not applied"
            raise StepRefused(text, request_ids=[batch.groups[1].request_id])
        return await super().update(algorithm, batch)


def test_the_groups_of_a_refused_step_lie_in_a_file_that_the_error_names(stage, tmp_path):
    made = stage(make_job(["train.num_steps=3"]), fake_roles(rank=Refuses()))
    with pytest.raises(
        StepRefused, match=r"the step was not applied. They are in .*/refused/step-000001.jsonl"
    ) as caught:
        made.drive()
    assert caught.value.request_ids == (3,)
    [line] = (tmp_path / "refused" / "step-000001.jsonl").read_text().splitlines()
    assert json.loads(line)["request_id"] == 3


def test_a_resumed_job_meets_the_refused_batch_again_and_keeps_its_groups_again(stage, tmp_path):
    for _ in range(2):
        (tmp_path / "refused" / "step-000001.jsonl").unlink(missing_ok=True)
        with pytest.raises(StepRefused, match="the loss is nan"):
            stage(make_job(["train.num_steps=3"]), fake_roles(rank=Refuses())).drive()
        assert (tmp_path / "refused" / "step-000001.jsonl").exists()


def test_a_kept_group_shows_every_number_that_is_not_finite_and_where(tmp_path):
    group = make_group((2, 3), request_id=7)
    reference = group.reference_logprobs.copy()
    reference[[1, 4]] = [np.nan, -np.inf]
    batch = Batch(step=12, groups=(make_group((1, 1)), replace(group, reference_logprobs=reference)))
    with_culprits_kept(StepRefused("refused", request_ids=[7]), batch, job_dir=tmp_path)
    [line] = (tmp_path / "refused" / "step-000012.jsonl").read_text().splitlines()
    first, second = json.loads(line)["completions"]
    assert first["not_finite"] == {"reference_logprobs": [{"token": 1, "value": "nan"}]}
    assert second["not_finite"] == {"reference_logprobs": [{"token": 2, "value": "-inf"}]}
    assert second["token_ids"] == group.token_ids[2:].tolist()
    assert second["advantages"] == pytest.approx(group.advantages[2:].tolist())
    assert second["reward"] == pytest.approx(float(group.rewards[1]))


def test_where_no_group_alone_is_to_blame_all_are_kept(tmp_path):
    batch = Batch(step=0, groups=tuple(make_group((2, 2), request_id=number) for number in range(3)))
    with_culprits_kept(StepRefused("their sum is too large"), batch, job_dir=tmp_path)
    assert len((tmp_path / "refused" / "step-000000.jsonl").read_text().splitlines()) == 3


def test_a_disk_that_takes_no_file_does_not_hide_what_was_refused(tmp_path):
    (tmp_path / "refused").touch()
    error = with_culprits_kept(
        StepRefused("the loss is nan", request_ids=[0]), Batch(step=0, groups=()), job_dir=tmp_path
    )
    assert str(error).startswith("the loss is nan. They could not be written to ")
    assert error.request_ids == (0,)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["guards.judge=glod"], "guards.judge = 'glod' is no reward of the job, whose rewards are 'fake', 'gold'"),
        (["guards.judge=fake"], "guards.judge = 'fake' has weight = 1, so it is trained on and cannot judge"),
    ],
)
def test_a_judge_has_to_be_a_reward_that_is_not_trained_on(overrides, message):
    with pytest.raises(ConfigError, match=message):
        make_job(overrides, **HACKABLE)


def test_a_judge_needs_held_out_prompts():
    with pytest.raises(ConfigError, match=r"there are none: add a \[data.eval\] table"):
        make_job(["guards.judge=gold"], rewards=REWARDS)


def test_a_view_says_what_stands_until_all_is_well(stage):
    rank = Reports("learner/kl", 3.0, 0.1)
    job = make_job(["train.num_steps=2", "guards.kl_steps=1", "guards.on_kl_runaway=warn"])
    made = stage(job, fake_roles(rank=rank))

    async def two_steps(driver: Any, roles: Any) -> list[str]:
        await made.serve(driver)
        said = []
        for _ in range(2):
            await driver.train_step()
            said.append(driver.guards.sentence)
        return said

    first, second = made.play(two_steps)
    assert first.startswith("kl_runaway: the KL to the reference was above")
    assert second == ""
