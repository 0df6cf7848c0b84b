"""The rollout workers of a job: who is waited for, who is replaced, where the requests of those go. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rlhf_cluster.driver.ledger.entry_log import read_entries
from rlhf_cluster.errors import BudgetSpent, FingerprintMismatch, StorageError, WeightsUnavailable
from rlhf_cluster.flow.audit import audit
from rlhf_cluster.records import RolloutRequest
from rlhf_cluster.records.events import StepDone, WorkerChanged
from rlhf_cluster.records.ledger import Dispatched, Entry, Lost, Proved
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.faults import GARBAGE, FaultPlan
from rlhf_cluster.testing.faulty_roles import FaultyRole, with_faults
from rlhf_cluster.testing.fleet import Pace, SimulatedRole, SimulatedRuntime, SimulatedWorker

TWO = ["rollout.num_workers=2", "train.prompts_per_step=4", "train.num_steps=3"]
SLOW_ADOPT_S = 40.0
NO_FAULTS = FaultPlan(seed=0)


def role_of(made: Any, worker_id: str) -> SimulatedRole:
    return next(role for role in made.runtime.opened if role.worker_id == worker_id)


def runtime(change: Callable[[SimulatedRole], Any] | None = None, **pace: Any) -> SimulatedRuntime:
    """`change` may return another handle for a role."""
    return SimulatedRuntime(Pace(**pace), wrap=lambda role: (change and change(role)) or role)


def slow_to_adopt(role: SimulatedRole) -> None:
    if role.worker_id == "rollout-1":
        assert isinstance(role, SimulatedWorker)
        role.adopt_s = SLOW_ADOPT_S


def lost(made: Any) -> dict[str, str]:
    """Why, by worker."""
    return {event.worker_id: event.reason for event in made.seen(WorkerChanged) if event.state == "lost"}


def entries(made: Any, *kinds: type[Entry]) -> list[Any]:
    return [entry for entry in read_entries(made.job_dir / "ledger") if type(entry) in kinds]


def check(made: Any) -> None:
    report = audit(made.history, max_staleness=made.job.train.max_staleness)
    assert report.ok, [found for found in report.checks if not found.ok]


def test_a_synchronous_job_waits_until_every_worker_has_adopted(stage):
    made = stage(make_job(TWO), runtime(slow_to_adopt))

    async def act(driver: Any, roles: Any) -> list[str]:
        return [proof.worker_id for proof in await made.serve(driver)]

    assert made.play(act) == ["rollout-0", "rollout-1"]
    assert made.clock.monotonic() > SLOW_ADOPT_S


def test_an_asynchronous_job_waits_for_a_worker_only_when_it_would_lag_too_far_behind(stage):
    made = stage(make_job([*TWO, "train.max_staleness=1"]), runtime(slow_to_adopt))
    waited_s: list[float] = []

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        for _ in range(2):
            groups = await driver.feed.gather()
            assert groups
            for rank in driver.learner.host.group.ranks:
                rank.version += 1
            driver.learner.num_applied += 1
            started_s = made.clock.monotonic()
            await made.serve(driver)
            waited_s.append(made.clock.monotonic() - started_s)

    made.play(act)
    assert waited_s[0] < 1.0, "version 0 is within the bound of version 1"
    assert waited_s[1] > SLOW_ADOPT_S / 2, "version 0 is not within the bound of version 2"


@pytest.mark.parametrize("how", ["dies", "hangs", "refuses"])
def test_a_worker_that_is_lost_while_it_adopts_is_replaced_and_not_waited_for(stage, how):
    class Refuses(FaultyRole):
        async def adopt(self, handle: Any) -> Any:
            raise FingerprintMismatch("the bytes that arrived are not the published")

    def change(role: SimulatedRole) -> Any:
        slow_to_adopt(role)
        return Refuses(role, NO_FAULTS) if how == "refuses" and role.worker_id == "rollout-1" else None

    made = stage(make_job([*TWO, "recovery.unresponsive_s=10"]), runtime(change))

    async def act(driver: Any, roles: Any) -> list[str]:
        role = role_of(made, "rollout-1")
        strike = {"dies": role.kill, "hangs": role.hang, "refuses": lambda: None}[how]
        asyncio.get_running_loop().call_later(5.0, strike)
        there = [proof.worker_id for proof in await made.serve(driver)]
        await asyncio.sleep(10.0)
        assert driver.fleet.serving() == ["rollout-0", "rollout-2"]
        return there

    assert made.play(act) == ["rollout-0"]
    assert set(lost(made)) == {"rollout-1"}
    assert made.clock.monotonic() < SLOW_ADOPT_S + 10.0


def test_workers_that_can_never_adopt_end_the_job_and_the_last_cause_is_named(stage):
    class Refuses(FaultyRole):
        async def adopt(self, handle: Any) -> Any:
            raise FingerprintMismatch("the bytes that arrived are not the published")

    made = stage(
        make_job([*TWO, "recovery.max_restarts=3"]),
        runtime(lambda role: Refuses(role, NO_FAULTS) if role.role == "rollout worker" else None),
    )
    with pytest.raises(BudgetSpent, match="The last cause: the bytes that arrived are not the published"):
        made.drive()


def test_a_joiner_proves_the_newest_version_before_its_first_prompt(stage):
    made = stage(make_job([*TWO, "train.num_steps=6"]), runtime())

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        await driver.train_step()
        roles.rollout.resize(3)
        for _ in range(4):
            await driver.train_step()

    made.play(act)
    story = [e for e in entries(made, Proved, Dispatched) if e.worker_id == "rollout-2"]
    assert isinstance(story[0], Proved)
    assert story[0].version >= 1
    assert any(isinstance(entry, Dispatched) for entry in story)
    check(made)


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_training_does_not_stop_for_a_joiner_that_adopts_its_first_version(stage, max_staleness):
    def change(role: SimulatedRole) -> None:
        if role.worker_id == "rollout-2":
            assert isinstance(role, SimulatedWorker)
            role.adopt_s = SLOW_ADOPT_S

    made = stage(make_job([*TWO, f"train.max_staleness={max_staleness}"]), runtime(change))

    async def act(driver: Any, roles: Any) -> list[str]:
        await made.serve(driver)
        roles.rollout.resize(3)
        await asyncio.sleep(2.0)
        assert list(roles.rollout.started()) == ["rollout-2"]
        started_s = made.clock.monotonic()
        await driver.train_step()
        assert made.clock.monotonic() - started_s < SLOW_ADOPT_S / 2
        await asyncio.sleep(2 * SLOW_ADOPT_S)
        return driver.fleet.serving()

    assert made.play(act) == ["rollout-0", "rollout-1", "rollout-2"]
    check(made)


class CountsWholes(FaultyRole):
    num = 0

    async def publish_full(self) -> Any:
        type(self).num += 1
        return await self._role.publish_full()


def test_a_joiner_that_cannot_apply_a_delta_gets_the_version_whole(stage):
    class Rank(CountsWholes):
        num = 0

    made = stage(
        make_job([*TWO, "train.num_steps=6", "weights.full_every=10"]),
        runtime(lambda role: Rank(role, NO_FAULTS) if role.role == "learner" else None),
    )

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        await driver.train_step()
        assert Rank.num == 0, "those that were there apply the delta"
        roles.rollout.resize(3)
        await asyncio.sleep(10.0)
        assert driver.fleet.version_of("rollout-2") == 1
        await driver.train_step()

    made.play(act)
    assert Rank.num == 1
    assert not lost(made)


def test_weights_that_went_with_a_lost_learner_are_published_again(stage):
    class Rank(CountsWholes):
        num = 0

    class MissesOnce(FaultyRole):
        missed = False

        async def adopt(self, handle: Any) -> Any:
            if not MissesOnce.missed:
                MissesOnce.missed = True
                raise WeightsUnavailable("the owner of this object has died")
            return await self._role.adopt(handle)

    def change(role: SimulatedRole) -> Any:
        if role.role == "learner":
            return Rank(role, NO_FAULTS)
        return MissesOnce(role, NO_FAULTS) if role.worker_id == "rollout-1" else None

    made = stage(make_job(TWO), runtime(change))
    made.drive()
    assert Rank.num == 1
    assert not lost(made)


@pytest.mark.parametrize("kind", GARBAGE)
def test_a_worker_that_answers_garbage_is_replaced_and_nothing_of_it_is_trained_on(stage, kind):
    plan = FaultPlan(seed=0, kinds=(kind,), rate=1.0, max_faults=1)
    made = stage(make_job(TWO), SimulatedRuntime(wrap=with_faults(plan)))
    made.drive()
    assert plan.fired[kind] == 1
    [(_, reason)] = lost(made).items()
    assert "gave an answer that cannot be true" in reason
    assert [event.step for event in made.seen(StepDone)] == [1, 2, 3]
    check(made)


def test_a_drained_worker_hands_over_what_it_has_begun_and_another_goes_on_from_there(stage):
    made = stage(make_job(TWO), runtime(seconds_of=lambda request: 10.0))

    async def act(driver: Any, roles: Any) -> None:
        async def drain() -> None:
            await asyncio.sleep(7.0)
            assert roles.rollout.drain("rollout-1")

        await made.serve(driver)
        draining = asyncio.create_task(drain())
        await driver.train_step()
        assert driver.fleet.serving() == ["rollout-0"]
        await draining

    made.play(act)
    assert not lost(made)
    lives = made.history.lives.values()
    shared = [life for life in lives if life.group and life.group.workers == ("rollout-0", "rollout-1")]
    assert len(shared) == 2
    assert {entry.reason for entry in entries(made, Lost)} == {"drained"}
    states = [event.state for event in made.seen(WorkerChanged) if event.worker_id == "rollout-1"]
    assert states[-2:] == ["draining", "closed"]
    assert made.clock.monotonic() < 20.0, "the tokens that were there were not generated again"
    check(made)


def test_the_prompts_of_a_silent_worker_go_to_another_too_and_the_first_answer_counts(stage):
    job = make_job([*TWO, "recovery.hedge_s=10", "recovery.stall_s=5000"])
    made = stage(job, runtime())

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        stalls = role_of(made, "rollout-1")
        assert isinstance(stalls, SimulatedWorker)
        stalls.stall()
        await driver.train_step()

    made.play(act)
    assert made.clock.monotonic() < 100.0
    assert not lost(made), "it may yet go on"
    sent = entries(made, Dispatched)
    held = {request_id for entry in sent if entry.worker_id == "rollout-1" for request_id in entry.request_ids}
    twice = {i for entry in sent if entry.worker_id == "rollout-0" for i in entry.request_ids if i in held}
    assert twice
    assert all(made.history.lives[i].group.workers == ("rollout-0",) for i in twice)
    check(made)


class Pauses(FaultyRole):
    """Generates nothing for a while after it was asked, and goes on then."""

    def __init__(self, role: SimulatedRole, plan: FaultPlan, *, pause_s: float) -> None:
        super().__init__(role, plan)
        self._pause_s = pause_s

    async def run(self, requests: Any) -> Any:
        await asyncio.sleep(self._pause_s)
        async for groups in self._role.run(requests):
            yield groups


def test_a_hedged_worker_that_answers_first_after_all_is_taken_and_the_copy_is_passed_over(stage):
    def change(role: SimulatedRole) -> Any:
        if role.worker_id == "rollout-0":
            role.slowdown = 40.0
        return Pauses(role, NO_FAULTS, pause_s=30.0) if role.worker_id == "rollout-1" else None

    job = make_job([*TWO, "recovery.hedge_s=10", "recovery.stall_s=5000"])
    made = stage(job, runtime(change))
    made.drive()
    workers = {life.group.workers for life in made.history.lives.values()}
    assert ("rollout-1",) in workers
    sent = [request_id for entry in entries(made, Dispatched) for request_id in entry.request_ids]
    assert len(sent) > len(set(sent)), "copies went out"
    assert not lost(made)
    check(made)


@pytest.mark.parametrize(("how", "says"), [("stall", "made no token for"), ("hang", "has not told its status for")])
def test_a_worker_that_stays_silent_is_replaced(stage, how, says):
    job = make_job([*TWO, "recovery.hedge_s=10", "recovery.stall_s=60", "recovery.unresponsive_s=30"])
    made = stage(job, runtime())

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        getattr(role_of(made, "rollout-1"), how)()
        await driver.train_step()
        await asyncio.sleep(100.0)
        assert driver.fleet.serving() == ["rollout-0", "rollout-2"]

    made.play(act)
    assert says in lost(made)["rollout-1"]
    check(made)


def test_a_worker_whose_process_ends_while_nobody_asks_is_replaced_before_the_next_step(stage):
    shot = asyncio.Event()

    class Mourned(FaultyRole):
        async def gone(self) -> None:
            await shot.wait()
            await self._role.status()

    made = stage(
        make_job(TWO), runtime(lambda role: Mourned(role, NO_FAULTS) if role.role == "rollout worker" else None)
    )

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        role_of(made, "rollout-0").kill("was shot")
        shot.set()
        await asyncio.sleep(20.0)
        assert driver.fleet.serving() == ["rollout-1", "rollout-2"]

    made.play(act)
    assert "was shot" in lost(made)["rollout-0"]


def test_every_worker_of_a_machine_that_is_lost_is_missed_however_many_there_were(stage):
    shot = asyncio.Event()

    class Mourned(FaultyRole):
        async def gone(self) -> None:
            await shot.wait()
            await self._role.status()

    job = make_job([*TWO, "rollout.num_workers=12", "recovery.max_restarts=30"])
    made = stage(job, runtime(lambda role: Mourned(role, NO_FAULTS) if role.role == "rollout worker" else None))

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        for number in range(1, 12):
            role_of(made, f"rollout-{number}").kill("went with its machine")
        shot.set()
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.1)
        assert driver.fleet.serving() == ["rollout-0"]

    made.play(act)
    assert len(lost(made)) == 11


def test_a_worker_that_dies_gives_back_what_it_held_and_its_place_is_kept(stage):
    made = stage(make_job([*TWO, "train.max_staleness=2"]), runtime(seconds_of=lambda request: 5.0))

    async def act(driver: Any, roles: Any) -> list[list[int]]:
        await made.serve(driver)
        asyncio.get_running_loop().call_later(2.0, role_of(made, "rollout-0").kill)
        return [[group.request_id for group in await driver.feed.gather()] for _ in range(2)]

    assert made.play(act) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sum(life.num_lost for life in made.history.lives.values()) > 0


def test_a_prompt_that_came_back_before_its_copy_was_sent_is_not_sent_again(stage):
    def change(role: SimulatedRole) -> Any:
        return Pauses(role, NO_FAULTS, pause_s=45.0) if role.worker_id == "rollout-1" else None

    seconds_of = {0: 60.0, 1: 1.0}
    job = make_job(["rollout.num_workers=2", "rollout.max_in_flight=1", "recovery.hedge_s=10", "recovery.stall_s=5000"])
    made = stage(job, runtime(change, seconds_of=lambda request: seconds_of[request.request_id], score_s=30.0))

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        await driver.feed.gather()

    made.play(act)
    sent = [request_id for entry in entries(made, Dispatched) for request_id in entry.request_ids]
    assert sorted(sent) == [0, 1]


def test_what_an_owner_stumbles_over_when_its_worker_is_lost_is_told_and_not_only_logged(stage):
    class Stumbles:
        def arrived(self, *_: Any) -> None: ...

        def hedge(self, *_: Any) -> None: ...

        def returned(self, *_: Any) -> None:
            raise StorageError("no space left")

    made = stage(make_job(TWO), runtime())

    async def act(driver: Any, roles: Any) -> None:
        await made.serve(driver)
        request = RolloutRequest(
            request_id=1 << 40,
            prompt=made.prompts.train[0],
            num_completions=2,
            sampling=made.job.rollout.sampling,
            seed=0,
        )
        driver.fleet.send("rollout-0", [request], Stumbles())
        await asyncio.sleep(0.5)
        role_of(made, "rollout-0").kill()
        await driver.feed.gather()

    with pytest.raises(StorageError, match="no space left"):
        made.play(act)
