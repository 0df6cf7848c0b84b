"""Every command to a running job: what it does, what it answers, and what it refuses in words. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rlhf_cluster.driver.assemble import Setting
from rlhf_cluster.driver.assemble import _control as control_of
from rlhf_cluster.driver.assemble import _running as running
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.control import Control
from rlhf_cluster.driver.figures import Statuses
from rlhf_cluster.driver.mailbox import answer, post
from rlhf_cluster.driver.pacing import Pacing
from rlhf_cluster.errors import ConfigError, Fenced
from rlhf_cluster.records.commands import Checkpoint, Command, Drain, Pause, Resume, Scale, Stop
from rlhf_cluster.records.events import CheckpointSaved, Notice, StepDone, WorkerChanged
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.fleet import SimulatedRuntime

JOB = ["train.num_steps=200", "rollout.num_workers=2", "train.prompts_per_step=4"]

Obey = Callable[[Command], Awaitable[str]]


def command(made: Any, ask: Callable[[Obey, Any, Any], Awaitable[Any]]) -> Any:
    """What `ask(obey, driver, roles)` gives while the job trains."""

    async def act(driver: Any, roles: Any) -> Any:
        control = Control(made.job, driver, roles, stop=made.stop)
        training = asyncio.create_task(driver.run(made.stop))
        await asyncio.sleep(20.0)
        try:
            return await ask(control.obey, driver, roles)
        finally:
            made.stop.set()
            driver.rollouts.paused = False
            await training

    return made.play(act)


def refusal(made: Any, refused: Command) -> str:
    async def ask(obey: Obey, driver: Any, roles: Any) -> str:
        with pytest.raises(ConfigError) as raised:
            await obey(refused)
        return str(raised.value)

    return command(made, ask)


def on(stage: Any, *overrides: str) -> Any:
    return stage(make_job([*JOB, *overrides]), SimulatedRuntime())


def test_scale_changes_the_number_of_workers_now(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[str, list[int]]:
        told = await obey(Scale(role="rollout", num_workers=4))
        await asyncio.sleep(10.0)
        sizes = [len(driver.rollouts.fleet.serving())]
        await obey(Scale(role="rollout", num_workers=1))
        await asyncio.sleep(10.0)
        return told, [*sizes, len(driver.rollouts.fleet.serving())]

    assert command(on(stage), ask) == ("rollout: 2 -> 4 wanted from now on", [4, 1])


def test_reward_servers_can_be_scaled_too(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> int:
        assert await obey(Scale(role="reward", num_workers=3)) == "reward: 1 -> 3 wanted from now on"
        await asyncio.sleep(10.0)
        return len(roles.reward.handles())

    assert command(on(stage), ask) == 3


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("leave", [Scale(role="reward", num_workers=1), Drain(worker_id="reward-1")])
def test_a_reward_server_that_is_drained_is_closed(stage, leave, paused):
    async def ask(obey: Obey, driver: Any, roles: Any) -> list[str]:
        if paused:
            await obey(Pause())
            await asyncio.sleep(50.0)
        await obey(leave)
        await asyncio.sleep(10.0)
        return [member.state for member in roles.reward.view().members]

    made = on(stage, "reward_server.num_workers=2")
    assert command(made, ask) == ["serving"]
    assert [event.state for event in made.seen(WorkerChanged) if event.worker_id == "reward-1"][-1] == "closed"


def test_a_role_that_cannot_be_scaled_is_refused_with_those_that_can(stage):
    told = refusal(on(stage), Scale(role="rollouts", num_workers=3))
    assert told == "role 'rollouts' cannot be scaled in this job (did you mean 'rollout'?); it has rollout, reward"


def test_a_role_cannot_be_scaled_to_nothing(stage):
    assert "cannot have 0 replicas" in refusal(on(stage), Scale(role="rollout", num_workers=0))


def test_by_hand_and_by_policy_at_once_is_refused(stage):
    made = on(stage, "autoscale.min_workers=1", "autoscale.max_workers=4")
    told = refusal(made, Scale(role="rollout", num_workers=3))
    assert told.startswith("autoscale sets the number of rollout workers between 1 and 4: leave [autoscale] out")


def test_a_second_vllm_in_one_process_is_refused_for_it_would_end_the_job(stage):
    made = on(stage, "rollout.num_workers=1", "runtime=local")
    made.job = make_job([*JOB, "rollout.num_workers=1", "runtime=local", "rollout.engine={type='vllm'}"])
    assert "where vLLM can be opened once" in refusal(made, Scale(role="rollout", num_workers=2))


def test_drain_retires_one_worker_by_its_name(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[str, list[str]]:
        told = await obey(Drain(worker_id="rollout-0"))
        await asyncio.sleep(10.0)
        return told, driver.rollouts.fleet.serving()

    made = on(stage)
    assert command(made, ask) == ("rollout-0 is being drained; 1 rollout wanted from now on", ["rollout-1"])
    states = [event.state for event in made.seen(WorkerChanged) if event.worker_id == "rollout-0"]
    assert states[-2:] == ["draining", "closed"]


def test_a_worker_that_is_not_there_cannot_be_drained(stage):
    told = refusal(on(stage), Drain(worker_id="rollout-7"))
    assert told.startswith("no worker 'rollout-7' can be drained now (did you mean 'rollout-")
    assert refusal(on(stage), Drain(worker_id="x")).endswith("at work are rollout-0, rollout-1, reward-0")


def test_the_last_worker_cannot_be_drained(stage):
    assert "cannot have 0 replicas" in refusal(on(stage, "rollout.num_workers=1"), Drain(worker_id="rollout-0"))


def test_pause_holds_the_job_and_resume_lets_it_go_on(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> list[Any]:
        told: list[Any] = [await obey(Pause())]
        await asyncio.sleep(100.0)
        before = driver.step
        await asyncio.sleep(100.0)
        told += [driver.step - before, await obey(Resume()), await obey(Resume())]
        await asyncio.sleep(20.0)
        return [*told, driver.step > before]

    paused, gained, resumed, again, went_on = command(on(stage), ask)
    assert paused.startswith("paused at step ")
    assert resumed.startswith("resumed at step ")
    assert (gained, again, went_on) == (0, "the job is not paused; it goes on", True)


def test_the_time_of_a_pause_says_nothing_of_who_waited_for_whom(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> None:
        await obey(Pause())
        await asyncio.sleep(1000.0)
        await obey(Resume())
        await asyncio.sleep(100.0)

    made = on(stage)
    command(made, ask)
    steps = made.seen(StepDone)
    [held_up] = [done.step for done in steps if done.metrics["driver/gather_s"] > 500.0]
    unmeasured = [done.step for done in steps if "driver/ideal_share" not in done.metrics]
    assert unmeasured == [held_up - 1, held_up], "the one that ended in the pause, and the next"


def test_checkpoint_writes_one_after_the_step_under_way(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[int, str]:
        step, told = driver.step, await obey(Checkpoint())
        await asyncio.sleep(20.0)
        return step + 1, told

    made = on(stage, "checkpoint.every_steps=1000")
    step, told = command(made, ask)
    assert told == f"a checkpoint is written after step {step}"
    assert made.seen(CheckpointSaved)[0].step == step


def test_stop_ends_the_job_after_the_step_under_way_with_a_checkpoint(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[int, str]:
        return driver.step + 1, await obey(Stop())

    made = on(stage)
    step, told = command(made, ask)
    assert told == f"the job ends after step {step}, with a checkpoint"
    assert made.seen(StepDone)[-1].step == step
    assert made.seen(CheckpointSaved)[-1].step == step


@pytest.mark.parametrize(("step", "told"), [(0, "before its first step"), (200, "after step 200, with a checkpoint")])
def test_stop_while_no_step_is_under_way_names_none_that_is_still_to_come(stage, step, told):
    async def act(driver: Any, roles: Any) -> str:
        driver.step, driver.phase = step, "evaluating"
        return await Control(made.job, driver, roles, stop=made.stop).obey(Stop())

    made = on(stage)
    assert made.play(act) == f"the job ends {told}"


def test_a_checkpoint_of_a_paused_job_waits_and_the_answer_says_so(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> str:
        await obey(Pause())
        return await obey(Checkpoint())

    assert command(on(stage), ask).endswith(", once the job goes on: it is paused")


def test_stop_ends_a_paused_job_too(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> str:
        await obey(Pause())
        await asyncio.sleep(50.0)
        await obey(Stop())
        await asyncio.sleep(50.0)
        return driver.phase

    made = on(stage)
    command(made, ask)
    assert made.seen(CheckpointSaved)[-1].step == made.seen(StepDone)[-1].step


def test_what_works_beside_the_training_and_fails_is_told_and_ends_no_job(stage):
    async def broken() -> None:
        raise RuntimeError("no such luck")

    async def act(driver: Any, roles: Any) -> int:
        async with running({"commands": broken()}, driver):
            await made.serve(driver)
            await driver.train_step()
        return driver.step

    made = on(stage)
    assert made.play(act) == 1
    [notice] = made.seen(Notice)
    assert notice.level == "error"
    assert notice.text == "nobody sees to the job's commands any more: RuntimeError: no such luck"


def test_a_driver_that_was_replaced_leaves_commands_and_the_status_to_the_next_one(stage, tmp_path):
    made = on(stage)

    async def act(driver: Any, roles: Any) -> None:
        claim = Claim.take(tmp_path / "job", take_over=True)
        Claim.take(tmp_path / "job", take_over=True)
        setting = Setting(
            job=made.job,
            job_dir=tmp_path / "job",
            claim=claim,
            stop=made.stop,
            emit=made.events.append,
            clock=made.clock,
        )
        command_id = post(tmp_path / "job", Stop())
        statuses = Statuses(roles, bound_s=1.0)
        beside = control_of(
            setting,
            driver,
            roles,
            statuses,
            Pacing(made.job, driver.rollouts.fleet, emit=made.events.append, clock=made.clock),
        )
        ended = await asyncio.wait_for(asyncio.gather(*beside.values(), return_exceptions=True), 30.0)
        assert [type(error) for error in ended] == [Fenced, Fenced]
        assert answer(tmp_path / "job", command_id) is None

    (tmp_path / "job").mkdir()
    made.play(act)
    assert not made.stop.is_set()
    assert not (tmp_path / "job" / "status.json").exists()
