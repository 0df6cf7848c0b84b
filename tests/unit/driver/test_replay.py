"""A job's steps computed once more from what it left: equal to the bit, or told why not. Real learner, real ledger."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from rlhf_cluster.cli import main
from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.checkpoints import Checkpoints
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.ledger import Ledger
from rlhf_cluster.driver.replay import replay
from rlhf_cluster.errors import ConfigError, LedgerCorrupt
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.learner.role import LearnerRole
from rlhf_cluster.records import Batch, StepReport
from rlhf_cluster.runtime.spec import learner_spec
from rlhf_cluster.testing import FakeClock, make_group, make_job, save_tiny_model
from rlhf_cluster.weights.memory import MemoryTransport

NUM_STEPS, SAVE_AT = 4, 2


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> JobConfig:
    model = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    (model / "tokenizer.json").write_text("{}")
    return make_job([f"model={model}", "learner.precision=fp32", "learner.optimizer.lr=0.001", "train.num_steps=6"])


def groups(step: int):
    return tuple(
        dataclasses.replace(make_group([4, 7], request_id=step * 2 + number), advantages=None) for number in range(2)
    )


class Told:
    """What a learner of another machine might say."""

    def __init__(self, report: StepReport, *, loss: float) -> None:
        self.step, self.version, self.metrics = report.step, report.version, {"learner/loss": loss}


async def train(job: JobConfig, job_dir: Path, *, change_loss_of: int | None = None, settle: bool = False) -> None:
    """A job by hand: NUM_STEPS steps, a checkpoint at SAVE_AT, and one batch accepted and not learned."""
    job_dir.mkdir()
    (job_dir / "job.json").write_text(job.model_dump_json())
    ledger = Ledger.open(job_dir, claim=Claim.take(job_dir), clock=FakeClock())
    ledger.opened(0, ())
    role = LearnerRole(
        learner_spec(job, probe_token_ids=np.zeros(1, np.int32)), rank=0, num_ranks=1, transport=MemoryTransport()
    )
    await role.start(None)
    kept = Checkpoints(job_dir / "checkpoints", keep=2, state=dict, clock=FakeClock())
    for step in range(NUM_STEPS + 1):
        ids = [group.request_id for group in groups(step)]
        ledger.dispatched(ids, worker_id="rollout-0", version=step)
        for group in groups(step):
            ledger.completed(group, workers=("rollout-0",))
        batch = Batch(step=step, groups=job.algorithm.credit(groups(step)))
        ledger.accept(batch)
        if step == NUM_STEPS:
            break
        report = await role.update(job.algorithm, batch)
        changed = Told(report, loss=np.nextafter(report.metrics["learner/loss"], 9.0))
        ledger.learned(changed if step == change_loss_of else report)  # type: ignore[arg-type]
        if step + 1 == SAVE_AT:
            await kept.save(LearnerGroup([role]), step=SAVE_AT)
            ledger.saved(SAVE_AT, f"step-{SAVE_AT:06d}")
            if settle:
                ledger.start_segment()
                ledger.forget_before(SAVE_AT)
    ledger.close()
    await role.close()


def replayed(job_dir: Path, step: int, told: list[str] | None = None):
    return asyncio.run(replay(job_dir, step=step, tell=(told if told is not None else []).append))


def state_of(job_dir: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in job_dir.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def job_dir(job, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("jobs") / "done"
    asyncio.run(train(job, path))
    return path


@pytest.mark.parametrize(("step", "steps"), [(1, [0, 1]), (SAVE_AT, [2]), (3, [2, 3])])
def test_steps_are_equal_to_the_bit_from_the_model_or_the_nearest_checkpoint(job_dir, step, steps):
    before = state_of(job_dir)
    done = replayed(job_dir, step)
    assert [each.step for each in done] == steps
    assert all(each.is_equal and each.num_tokens == 22 for each in done)
    assert state_of(job_dir) == before


def test_a_damaged_checkpoint_is_told_and_the_steps_before_are_computed_too(job, tmp_path):
    asyncio.run(train(job, tmp_path / "job"))
    (tmp_path / "job" / "checkpoints" / f"step-{SAVE_AT:06d}" / "learner_state.pt").write_bytes(b"")
    told: list[str] = []
    done = replayed(tmp_path / "job", 2, told)
    assert [each.step for each in done] == [0, 1, 2]
    assert all(each.is_equal for each in done)
    assert len(told) == 1
    assert "learner_state.pt has 0 bytes" in told[0]


def test_a_loss_that_differs_in_the_last_bit_is_not_equal(job, tmp_path):
    asyncio.run(train(job, tmp_path / "job", change_loss_of=1))
    assert [each.is_equal for each in replayed(tmp_path / "job", 1)] == [True, False]


def test_a_step_that_was_accepted_and_never_learned_has_nothing_to_be_compared_with(job_dir):
    last = replayed(job_dir, NUM_STEPS)[-1]
    assert (last.logged_loss, last.is_equal) == (None, None)


def test_a_step_that_is_not_there_yet_is_refused_with_those_that_are(job_dir):
    with pytest.raises(ConfigError, match="step 9 was not accepted yet: steps 0 to 4 can be replayed"):
        replayed(job_dir, 9)


def test_a_step_whose_batches_are_settled_is_refused_with_those_that_are_kept(job, tmp_path):
    asyncio.run(train(job, tmp_path / "job", settle=True))
    with pytest.raises(ConfigError, match="step 1 is older than what is kept: steps 2 to 4 can be replayed"):
        replayed(tmp_path / "job", 1)
    assert all(each.is_equal for each in replayed(tmp_path / "job", 3))


def test_a_batch_that_credit_makes_differently_is_refused(job, tmp_path):
    asyncio.run(train(job, tmp_path / "job"))
    job_file = tmp_path / "job" / "job.json"
    tree = json.loads(job_file.read_text())
    tree["algorithm"]["scale_rewards"] = "none"
    job_file.write_text(json.dumps(tree))
    with pytest.raises(LedgerCorrupt, match="step 0: the batch has digest"):
        replayed(tmp_path / "job", 0)


def test_a_directory_without_a_job_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no job directory"):
        replayed(tmp_path, 0)


@pytest.mark.parametrize(("change_loss_of", "code"), [(None, 0), (1, 1)])
def test_the_command_tells_by_its_exit_code_whether_all_was_equal(job, tmp_path, capsys, change_loss_of, code):
    asyncio.run(train(job, tmp_path / "job", change_loss_of=change_loss_of))
    assert main.run(["replay", str(tmp_path / "job"), "--step", "1", "-o", "json"]) == code
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert [step["is_equal"] for step in steps] == [True, code == 0]
