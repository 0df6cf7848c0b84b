"""Every command to a running job: what it does, what it answers, and what it refuses in words. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from rlhf_cluster.driver.assemble import Setting
from rlhf_cluster.driver.assemble import _control as control_of
from rlhf_cluster.driver.assemble import _running as running
from rlhf_cluster.driver.claim import Claim
from rlhf_cluster.driver.control import Control
from rlhf_cluster.driver.figures import Statuses
from rlhf_cluster.driver.mailbox import answer, post
from rlhf_cluster.driver.sizes import Desired, read_desired
from rlhf_cluster.errors import ConfigError, Fenced
from rlhf_cluster.records.commands import Autoscale, Checkpoint, Command, Drain, Pause, Restart, Resume, Scale, Stop
from rlhf_cluster.records.events import CheckpointSaved, Event, Notice, StepDone, WorkerChanged
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.fleet import SimulatedRuntime

JOB = ["train.num_steps=200", "rollout.num_workers=2", "train.prompts_per_step=4"]

Obey = Callable[[Command], Coroutine[Any, Any, str]]


def command(made: Any, ask: Callable[[Obey, Any, Any], Awaitable[Any]]) -> Any:
    """What `ask(obey, driver, roles)` gives while the job trains."""

    async def act(driver: Any, roles: Any) -> Any:
        control = Control(driver, roles, stop=made.stop)
        training = asyncio.create_task(driver.run(made.stop))
        await asyncio.sleep(20.0)
        try:
            return await ask(control.obey, driver, roles)
        finally:
            made.stop.set()
            driver.feed.paused = False
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
        sizes = [len(driver.fleet.serving())]
        await obey(Scale(role="rollout", num_workers=1))
        await asyncio.sleep(10.0)
        return told, [*sizes, len(driver.fleet.serving())]

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


def test_a_number_turns_the_policy_of_the_job_off_and_says_so(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[str, Any]:
        told = await obey(Scale(role="rollout", num_workers=7))
        return told, driver.pacing.sizes.bounds

    made = on(stage, "autoscale.min_workers=1", "autoscale.max_workers=4")
    told, bounds = command(made, ask)
    assert told.endswith("-> 7 wanted from now on; the policy that chose between 1 and 4 is off")
    assert bounds is None


def test_scaling_another_role_leaves_the_policy_on(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[str, Any]:
        return await obey(Scale(role="reward", num_workers=2)), driver.pacing.sizes.bounds

    told, bounds = command(on(stage, "autoscale.min_workers=1", "autoscale.max_workers=4"), ask)
    assert told == "reward: 1 -> 2 wanted from now on"
    assert bounds is not None


def test_autoscale_brings_the_pool_within_its_bounds_at_once(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> list[Any]:
        told: list[Any] = [await obey(Autoscale(role="rollout", min_workers=4, max_workers=9)), roles.rollout.size]
        told += [await obey(Autoscale(role="rollout", min_workers=1, max_workers=3)), roles.rollout.size]
        return [*told, await obey(Autoscale(role="rollout", min_workers=2, max_workers=5))]

    assert command(on(stage), ask) == [
        "rollout: a policy chooses between 4 and 9 from now on; 2 -> 4 wanted now",
        4,
        "rollout: a policy chooses between 1 and 3 from now on; 4 -> 3 wanted now",
        3,
        "rollout: a policy chooses between 2 and 5 from now on; it begins with 3",
    ]


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (Autoscale(role="reward", min_workers=1, max_workers=2), "scale reward by hand"),
        (Autoscale(role="rollouts", min_workers=1, max_workers=2), "did you mean 'rollout'?"),
        (Autoscale(role="rollout", min_workers=0, max_workers=2), "min_workers = 0 and max_workers = 2"),
        (Autoscale(role="rollout", min_workers=3, max_workers=2), "the second no less than the first"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_and_changes_nothing(stage, refused, words):
    made = on(stage)
    assert words in refusal(made, refused)
    assert read_desired(made.job_dir) == {}


def test_what_is_obeyed_is_written_down_for_the_next_driver(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> list[dict[str, Desired]]:
        seen = []
        for wanted in (
            Scale(role="reward", num_workers=2),
            Autoscale(role="rollout", min_workers=2, max_workers=2),
            Scale(role="rollout", num_workers=5),
            Drain(worker_id="rollout-0"),
        ):
            await obey(wanted)
            seen.append(read_desired(made.job_dir))
        return seen

    made = on(stage)
    first, second, third, fourth = command(made, ask)
    reward = Desired(role="reward", num_workers=2)
    assert first == {"rollout": Desired(role="rollout", num_workers=2), "reward": reward}
    assert second["rollout"] == Desired(role="rollout", num_workers=2, mode="auto", min_workers=2, max_workers=2)
    assert third == {"rollout": Desired(role="rollout", num_workers=5), "reward": reward}
    assert fourth["rollout"].num_workers == 4


def test_a_disk_that_cannot_be_written_stops_no_scaling_and_is_told(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[str, int]:
        (made.job_dir / "control").write_text("in the way")
        return await obey(Scale(role="rollout", num_workers=3)), roles.rollout.size

    made = on(stage)
    told, size = command(made, ask)
    assert size == 3
    assert told.startswith("rollout: 2 -> 3 wanted from now on; control/desired.json cannot be written (")
    assert told.endswith("), so a next driver would not know of it")


def test_a_driver_that_was_replaced_scales_nothing(stage):
    async def act(driver: Any, roles: Any) -> tuple[int, int]:
        before = roles.rollout.size
        Claim.take(made.job_dir, take_over=True)
        with pytest.raises(Fenced):
            await Control(driver, roles, stop=made.stop).obey(Scale(role="rollout", num_workers=9))
        return before, roles.rollout.size

    made = on(stage)
    assert made.play(act) == (2, 2)
    assert read_desired(made.job_dir) == {}


def test_a_second_vllm_in_one_process_is_refused_for_it_would_end_the_job(stage):
    made = on(stage, "rollout.num_workers=1", "runtime=local")
    made.job = make_job([*JOB, "rollout.num_workers=1", "runtime=local", "rollout.engine={type='vllm'}"])
    assert "where vLLM can be opened once" in refusal(made, Scale(role="rollout", num_workers=2))


def test_drain_retires_one_worker_by_its_name(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[str, list[str]]:
        told = await obey(Drain(worker_id="rollout-0"))
        await asyncio.sleep(10.0)
        return told, driver.fleet.serving()

    made = on(stage)
    assert command(made, ask) == ("rollout-0 is being drained; 1 rollout wanted from now on", ["rollout-1"])
    states = [event.state for event in made.seen(WorkerChanged) if event.worker_id == "rollout-0"]
    assert states[-2:] == ["draining", "closed"]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_restart_has_another_worker_take_the_place_of_one(stage, num_workers):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[str, list[str], int]:
        told = await obey(Restart(worker_id="rollout-0"))
        await asyncio.sleep(10.0)
        return told, driver.fleet.serving(), driver.step

    made = on(stage, f"rollout.num_workers={num_workers}")
    told, serving, step = command(made, ask)
    assert told == f"rollout-0 is being drained, and another takes its place; {num_workers} rollout wanted as before"
    assert serving == [f"rollout-{number + 1}" for number in range(num_workers)]
    states = [event.state for event in made.seen(WorkerChanged) if event.worker_id == "rollout-0"]
    assert states[-2:] == ["draining", "closed"]
    assert step > 0


def test_a_reward_server_is_restarted_too(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> list[str]:
        await obey(Restart(worker_id="reward-0"))
        await asyncio.sleep(10.0)
        return list(roles.reward.handles())

    assert command(on(stage), ask) == ["reward-1"]


def test_a_worker_that_is_not_there_cannot_be_restarted(stage):
    told = refusal(on(stage), Restart(worker_id="x"))
    assert told == "no worker 'x' can be restarted now; at work are rollout-0, rollout-1, reward-0"


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


def test_a_checkpoint_that_is_asked_for_while_a_step_is_told_is_that_steps(stage):
    async def ask(obey: Obey, driver: Any, roles: Any) -> tuple[int, str]:
        told: list[tuple[int, str]] = []
        emit = driver.emit

        def emit_and_ask(event: Event) -> None:
            emit(event)
            if isinstance(event, StepDone) and not told:
                told.append((event.step, at_once(obey(Checkpoint()))))

        driver.emit = emit_and_ask
        await asyncio.sleep(20.0)
        return told[0]

    made = on(stage, "checkpoint.every_steps=1000")
    step, told = command(made, ask)
    assert told == f"a checkpoint is written after step {step}"
    assert made.seen(CheckpointSaved)[0].step == step


def at_once(answer: Coroutine[Any, Any, str]) -> str:
    """Of a command that waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        answer.send(None)
    return ended.value.value


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
        driver.step = driver.step_under_way = step
        return await Control(driver, roles, stop=made.stop).obey(Stop())

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
        beside = control_of(setting, driver, roles, statuses)
        ended = await asyncio.wait_for(asyncio.gather(*beside.values(), return_exceptions=True), 30.0)
        assert [type(error) for error in ended] == [Fenced, Fenced]
        assert answer(tmp_path / "job", command_id) is None

    (tmp_path / "job").mkdir()
    made.play(act)
    assert not made.stop.is_set()
    assert not (tmp_path / "job" / "status.json").exists()
