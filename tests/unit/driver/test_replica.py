"""The learner as a replica of the batch log: whatever dies, the next group gets to the same step. Virtual time."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.driver.ledger.entry_log import read_entries
from rlhf_cluster.errors import BudgetSpent, LearnerError, RoleHung
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.records.events import CheckpointSaved, LearnerRecovered, Notice, StepDone
from rlhf_cluster.records.ledger import Proved
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.faults import FaultPlan
from rlhf_cluster.testing.faulty_roles import FaultyRole
from rlhf_cluster.testing.fleet import Pace, SimulatedRank, SimulatedRole, SimulatedRuntime
from rlhf_cluster.testing.simulated_learner import STATE_FILE

JOB = ["train.num_steps=4", "recovery.unresponsive_s=20", "checkpoint.keep=9"]
NO_FAULTS = FaultPlan(seed=0)


class Dies(FaultyRole):
    """At its first call of one kind after `version` steps."""

    def __init__(self, role: SimulatedRole, *, call: str, version: int, how: str = "kill") -> None:
        super().__init__(role, NO_FAULTS)
        self._call, self._version, self._how = call, version, how

    def __getattr__(self, name: str) -> Any:
        if name == self._call and self._role.version == self._version:
            getattr(self._role, self._how)()
        return super().__getattr__(name)


def learners(change: Callable[[SimulatedRole], Any], **pace: Any) -> SimulatedRuntime:
    """`change` may return another handle for a rank."""
    return SimulatedRuntime(Pace(**pace), wrap=lambda role: (role.role == "learner" and change(role)) or role)


def first_dies(**how: Any) -> SimulatedRuntime:
    return learners(lambda role: Dies(role, **how) if role.worker_id == "learner-0" else None)


def ranks(made: Any) -> list[SimulatedRank]:
    return [role for role in made.runtime.opened if isinstance(role, SimulatedRank)]


def losses(made: Any) -> list[float]:
    return [event.metrics["learner/loss"] for event in made.seen(StepDone)]


@pytest.fixture
def undisturbed(stage, tmp_path) -> Callable[[Any], list[float]]:
    def run(job: Any) -> list[float]:
        (tmp_path / "undisturbed").mkdir()
        made = stage(job, SimulatedRuntime(), job_dir=tmp_path / "undisturbed")
        made.drive()
        return losses(made)

    return run


@pytest.mark.parametrize("how", ["kill", "hang"])
@pytest.mark.parametrize(("call", "version"), [("update", 2), ("publish", 2), ("publish", 0), ("save", 4)])
def test_a_group_lost_in_any_call_costs_no_batch_and_changes_no_loss(stage, undisturbed, call, version, how):
    made = stage(make_job(JOB), first_dies(call=call, version=version, how=how))
    made.drive()
    assert losses(made) == undisturbed(made.job)
    [recovered] = made.seen(LearnerRecovered)
    assert (recovered.step, recovered.num_replayed) == (version, version)
    assert [event.step for event in made.seen(CheckpointSaved)] == [4]
    assert audit(made.history, max_staleness=0).ok
    assert [notice.level for notice in made.seen(Notice)] == (["error"] if call == "save" else [])


def test_a_new_group_loads_the_newest_checkpoint_and_replays_only_what_came_after(stage, undisturbed):
    job = make_job([*JOB, "checkpoint.every_steps=2"])
    made = stage(job, first_dies(call="update", version=3))
    made.drive()
    [recovered] = made.seen(LearnerRecovered)
    assert (recovered.step, recovered.num_replayed) == (3, 1)
    assert losses(made) == undisturbed(job)
    replayed = [len(made.history.steps[step].learned) for step in range(4)]
    assert replayed == [1, 1, 2, 1]


def test_what_a_recovery_took_is_told(stage):
    made = stage(make_job(JOB), first_dies(call="update", version=3))
    made.runtime.pace = Pace(learner_start_s=7.0, update_s=2.0)
    made.drive()
    [recovered] = made.seen(LearnerRecovered)
    assert recovered.respawn_s == pytest.approx(7.0)
    assert recovered.replay_s == pytest.approx(6.0)
    assert "learner-0 was killed" in recovered.reason


def test_a_second_group_that_dies_while_it_replays_is_replaced_as_well(stage, undisturbed):
    def change(role: SimulatedRole) -> Any:
        versions = {"learner-0": 3, "learner-0.1": 1}
        return Dies(role, call="update", version=versions[role.worker_id]) if role.worker_id in versions else None

    made = stage(make_job(JOB), learners(change))
    made.drive()
    assert losses(made) == undisturbed(made.job)
    [recovered] = made.seen(LearnerRecovered)
    assert (recovered.step, recovered.num_replayed) == (3, 3)
    assert "learner-0.1 was killed" in recovered.reason
    assert [rank.worker_id for rank in ranks(made)] == ["learner-0", "learner-0.1", "learner-0.2"]


def test_one_rank_that_dies_takes_the_group_with_it(stage):
    job = make_job([*JOB, "runtime=ray", "learner.num_ranks=2", "learner.backend=ddp"])

    def change(role: SimulatedRole) -> Any:
        return Dies(role, call="update", version=2) if role.worker_id == "learner-1" else None

    made = stage(job, learners(change))
    made.drive()
    assert [rank.worker_id for rank in ranks(made)] == ["learner-0", "learner-1", "learner-0.1", "learner-1.1"]
    assert len(made.seen(LearnerRecovered)) == 1
    assert ranks(made)[0].death == "was killed"


def test_a_replay_that_gives_another_loss_is_told_and_training_goes_on_from_it(stage):
    class Drifts(FaultyRole):
        async def update(self, algorithm: Any, batch: Any) -> Any:
            report = await self._role.update(algorithm, batch)
            report.metrics["learner/loss"] += 1.0
            return report

    def change(role: SimulatedRole) -> Any:
        return Dies(role, call="update", version=2) if role.worker_id == "learner-0" else Drifts(role, NO_FAULTS)

    made = stage(make_job(JOB), learners(change))
    made.drive()
    told = made.seen(Notice)
    assert [notice.level for notice in told] == ["warning", "warning"]
    assert "the replay of step 0 gave the loss 1." in told[0].text
    assert [event.step for event in made.seen(StepDone)] == [1, 2, 3, 4]
    assert not audit(made.history, max_staleness=0).ok, "the audit says so too"


def test_a_group_that_is_lost_over_and_over_ends_the_job_with_the_last_cause(stage):
    made = stage(
        make_job([*JOB, "recovery.max_restarts=2"]), learners(lambda role: Dies(role, call="update", version=0))
    )
    with pytest.raises(BudgetSpent, match=r"the learner was lost 3 times.*learner-0\.2 was killed"):
        made.drive()
    assert [rank.worker_id for rank in ranks(made)] == ["learner-0", "learner-0.1", "learner-0.2"]


def test_a_loss_that_is_not_finite_is_no_loss_of_the_group(stage):
    class Diverges(FaultyRole):
        async def update(self, algorithm: Any, batch: Any) -> Any:
            raise LearnerError("step 0: the loss is nan; the step was not applied")

    made = stage(make_job(JOB), learners(lambda role: Diverges(role, NO_FAULTS)))
    with pytest.raises(LearnerError, match="the loss is nan"):
        made.drive()
    assert len(ranks(made)) == 1


def stopped_after(stage: Any, job: Any, num_steps: int) -> Path:
    made = stage(job, SimulatedRuntime())
    made.at = lambda transition: (
        made.transitions.append(transition)
        or (made.stop.set() if made.transitions.count("update") == num_steps else None)
    )
    made.drive()
    return made.job_dir / "checkpoints"


def test_a_resumed_job_without_any_checkpoint_replays_all_of_its_log(stage, undisturbed):
    job = make_job(JOB)
    shutil.rmtree(stopped_after(stage, job, 3))
    made = stage(job, SimulatedRuntime())
    made.drive()
    assert losses(made) == undisturbed(job)[3:]
    assert [len(made.history.steps[step].learned) for step in range(4)] == [2, 2, 2, 1]


def test_a_first_group_that_dies_while_it_replays_is_replaced(stage, undisturbed):
    job = make_job(JOB)
    shutil.rmtree(stopped_after(stage, job, 3))
    made = stage(job, first_dies(call="update", version=1))
    made.drive()
    assert losses(made) == undisturbed(job)[3:]
    [recovered] = made.seen(LearnerRecovered)
    assert (recovered.step, recovered.num_replayed) == (3, 3)


def test_a_damaged_checkpoint_is_passed_over_told_and_made_up_for_by_the_log(stage, undisturbed):
    job = make_job([*JOB, "checkpoint.every_steps=2"])
    newest = stopped_after(stage, job, 3) / "step-000003"
    state = next(newest.glob("simulated_learner.json"))
    state.write_bytes(state.read_bytes()[:-5])
    made = stage(job, SimulatedRuntime())
    made.drive()
    [notice] = made.seen(Notice)
    assert (notice.level, notice.step) == ("error", 3)
    assert "step-000003" in notice.text
    assert [len(made.history.steps[step].learned) for step in range(4)] == [1, 1, 2, 1]
    assert losses(made) == undisturbed(job)[3:]


def test_workers_that_hold_the_weights_of_a_lost_learner_keep_them(stage):
    made = stage(make_job(JOB), first_dies(call="update", version=2))
    made.drive()
    proved = [e.version for e in read_entries(made.job_dir / "ledger") if isinstance(e, Proved)]
    assert proved == [0, 1, 2, 3, 4]


def test_whoever_finds_the_group_mended_by_another_just_goes_on(stage):
    made = stage(make_job(JOB), SimulatedRuntime(Pace(publish_s=5.0)))

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        asyncio.get_running_loop().call_later(1.0, ranks(made)[0].kill)
        await asyncio.gather(driver.learner.publish(), driver.learner.publish())

    made.play(act)
    assert len(made.seen(LearnerRecovered)) == 1
    assert [rank.worker_id for rank in ranks(made)] == ["learner-0", "learner-0.1"]


async def lost_after(made: Any, driver: Any, num_steps: int) -> asyncio.Task[Any]:
    """The learner dies after so many steps, and a worker that asks for its weights is the first to see it."""
    await made.serve(driver)
    for _ in range(num_steps):
        await driver.train_step()
    ranks(made)[0].kill()
    return asyncio.create_task(driver.learner.publish_full())


def test_no_step_is_learned_by_a_group_that_is_still_replaying_those_before_it(stage, undisturbed):
    made = stage(make_job(JOB), SimulatedRuntime(Pace(learner_start_s=0.0)))

    async def act(driver: Any, roles: Any) -> None:
        asking = await lost_after(made, driver, 3)
        await driver.train_step()
        await asking

    made.play(act)
    assert losses(made) == undisturbed(made.job)
    [recovered] = made.seen(LearnerRecovered)
    assert (recovered.step, recovered.num_replayed) == (3, 3)


def test_a_worker_that_asks_for_weights_while_a_group_catches_up_gets_them_when_it_has(stage):
    made = stage(make_job(JOB), SimulatedRuntime(Pace(learner_start_s=0.0)))

    async def act(driver: Any, roles: Any) -> None:
        asking = await lost_after(made, driver, 3)
        await asyncio.sleep(1.5)
        assert ranks(made)[-1].version == 1, "it is on its way"
        assert (await driver.learner.publish_full()).version == 3
        await asking

    made.play(act)


def test_a_checkpoint_that_falls_due_while_a_group_catches_up_is_of_its_own_step(stage):
    made = stage(make_job([*JOB, "checkpoint.every_steps=3"]), SimulatedRuntime(Pace(learner_start_s=0.0, adopt_s=0.5)))
    drivers: list[Any] = []
    asking: list[asyncio.Task[Any]] = []

    def at(transition: str) -> None:
        made.transitions.append(transition)
        if made.transitions.count("adopt") == 4 and not asking:
            ranks(made)[0].kill()
            asking.append(asyncio.create_task(drivers[0].learner.publish_full()))

    async def act(driver: Any, roles: Any) -> None:
        drivers.append(driver)
        await driver.run(made.stop)
        await asyncio.gather(*asking)

    made.at = at
    made.play(act)
    state = json.loads((made.job_dir / "checkpoints" / "step-000003" / "simulated_learner.json").read_text())
    assert state["version"] == 3


async def _lose_the_learner_to_a_joiner(made: Any, driver: Any, *, after_s: float) -> asyncio.Task[Any]:
    """Three steps are learned; a joiner found the group dead, and it is being mended since `after_s`."""
    await made.serve(driver)
    for _ in range(3):
        await driver.train_step()
    ranks(made)[0].kill()
    joiner = asyncio.create_task(driver.learner.publish_full())
    await asyncio.sleep(after_s)
    return joiner


@pytest.mark.parametrize("after_s", [1.0, 3.5])
def test_a_joiner_that_is_lost_while_it_has_the_learner_mended_leaves_no_half(stage, undisturbed, after_s):
    made = stage(make_job(JOB), SimulatedRuntime())

    async def act(driver: Any, roles: Any) -> None:
        joiner = await _lose_the_learner_to_a_joiner(made, driver, after_s=after_s)
        joiner.cancel()
        await driver.train_step()

    made.play(act)
    assert losses(made) == undisturbed(made.job)
    assert [rank.worker_id for rank in ranks(made)] == ["learner-0", "learner-0.1"]
    assert [len(made.history.steps[step].learned) for step in range(4)] == [2, 2, 2, 1]
    assert audit(made.history, max_staleness=0).ok


@pytest.mark.parametrize("after_s", [1.0, 3.5])
def test_a_checkpoint_that_is_due_while_the_learner_is_mended_holds_its_own_step(stage, after_s):
    made = stage(make_job(JOB), SimulatedRuntime())

    async def act(driver: Any, roles: Any) -> None:
        joiner = await _lose_the_learner_to_a_joiner(made, driver, after_s=after_s)
        driver.wants_checkpoint = True
        await driver._save_when(False)
        await driver._saved()
        await joiner

    made.play(act)
    [saved] = made.seen(CheckpointSaved)
    assert (saved.step, json.loads((saved.path / STATE_FILE).read_text())["version"]) == (3, 3)


def test_an_update_of_a_group_that_another_call_has_given_up_is_done_again(stage, undisturbed):
    class OutlivesItsEnd(FaultyRole):
        """As in the driver's own process: it cannot be killed, and finishes what it is at."""

        kill = None

        async def close(self) -> None: ...

        async def publish_full(self) -> Any:
            raise RoleHung("no answer", role="learner", worker_id="learner-0", activity="publishing weights whole")

    def change(role: SimulatedRole) -> Any:
        return OutlivesItsEnd(role, NO_FAULTS) if role.worker_id == "learner-0" else None

    made = stage(make_job(JOB), learners(change, update_s=4.0))

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        await driver.train_step()
        step = asyncio.create_task(driver.train_step())
        await asyncio.sleep(2.0)
        await driver.learner.publish_full()
        await step
        for _ in range(2):
            await driver.train_step()

    made.play(act)
    assert losses(made) == undisturbed(made.job)
    assert len(made.seen(LearnerRecovered)) == 1
    assert audit(made.history, max_staleness=0).ok


def test_a_save_under_way_takes_no_checkpoint_from_a_group_that_is_to_load_it(stage, undisturbed):
    written = asyncio.Event()

    class SavesToItsEnd(FaultyRole):
        """Its files are handed to a disk that outlives it."""

        async def save(self, path: Path, *, with_state: bool) -> None:
            await self._role.save(path, with_state=with_state)
            if path.name.startswith(".writing-000002"):
                written.set()
                await asyncio.sleep(8.0)

    job = make_job([*JOB, "checkpoint.keep=1", "checkpoint.every_steps=1"])
    made = stage(job, learners(lambda role: SavesToItsEnd(role, NO_FAULTS), update_s=4.0))

    async def act(driver: Any, roles: Any) -> None:
        training = asyncio.create_task(driver.run(made.stop))
        await written.wait()
        await asyncio.sleep(2.0)
        ranks(made)[0].kill()
        await training

    made.play(act)
    assert losses(made) == undisturbed(job)
    [recovered] = made.seen(LearnerRecovered)
    assert (recovered.step, recovered.num_replayed) == (2, 0)
