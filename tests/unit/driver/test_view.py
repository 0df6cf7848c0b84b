"""The whole state of a running job as one record. Virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

from rlhf_cluster.driver.figures import Statuses
from rlhf_cluster.driver.sizes import Bounds
from rlhf_cluster.driver.view import Views
from rlhf_cluster.records.members import JobView, PoolView
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.fleet import Pace, SimulatedRuntime

JOB = ["train.num_steps=50", "rollout.num_workers=2", "rollout.spares=1", "train.prompts_per_step=4"]


def looked(made: Any, look: Any) -> Any:
    """What `look(views, driver, roles)` gives while the job trains."""

    async def act(driver: Any, roles: Any) -> Any:
        statuses = Statuses(roles, bound_s=5.0)
        views = Views(driver, roles, statuses, epoch=3, stop=made.stop, clock=made.clock)
        training = asyncio.create_task(driver.run(made.stop))
        try:
            return await look(views, driver, roles)
        finally:
            made.stop.set()
            driver.feed.paused = False
            await training

    return made.play(act)


def pool(view: JobView, role: str) -> PoolView:
    return next(pool for pool in view.pools if pool.role == role)


def role_of(made: Any, worker_id: str) -> Any:
    return next(role for role in made.runtime.opened if role.worker_id == worker_id)


def test_a_view_tells_where_the_job_is_and_who_does_what(stage):
    made = stage(make_job(JOB), SimulatedRuntime(Pace(seconds_of=lambda request: 10.0)))

    async def look(views: Any, driver: Any, roles: Any) -> JobView:
        await asyncio.sleep(15.0)
        return await views.now()

    view = looked(made, look)
    assert (view.epoch, view.job_name, view.state, view.phase) == (3, "test", "running", "training")
    assert (view.step, view.num_steps, view.num_in_flight, view.num_complete) == (1, 50, 4, 0)
    assert view.waiting_for == "prompt 4 on rollout-0"
    workers = pool(view, "rollout worker")
    assert (workers.desired, [member.state for member in workers.members]) == (2, ["serving", "serving", "spare"])
    assert [member.version for member in workers.members[:2]] == [1, 1]
    assert [member.num_in_flight for member in workers.members[:2]] == [2, 2]
    [learner] = pool(view, "learner").members
    assert (learner.worker_id, learner.state, learner.version) == ("learner-0", "serving", 1)
    assert 0.0 <= made.clock.time() - view.time_s < 60.0


def test_a_view_tells_who_chooses_the_size_and_what_the_policy_says(stage):
    async def look(views: Any, driver: Any, roles: Any) -> list[JobView]:
        await asyncio.sleep(60.0)
        by_hand = await views.now()
        driver.pacing.sizes.by_policy("rollout", Bounds(min_workers=1, max_workers=4))
        await asyncio.sleep(60.0)
        return [by_hand, await views.now()]

    made = stage(make_job([*JOB, "train.max_staleness=1", "train.num_steps=500"]), SimulatedRuntime())
    by_hand, by_policy = (pool(view, "rollout worker") for view in looked(made, look))
    assert (by_hand.mode, by_hand.min_workers, by_hand.max_workers) == ("manual", 0, 0)
    assert by_hand.recommended >= 1
    assert f"headroom asks for {by_hand.recommended}" in by_hand.reason or "; but " in by_hand.reason
    assert (by_policy.mode, by_policy.min_workers, by_policy.max_workers) == ("auto", 1, 4)
    assert by_policy.reason.startswith(("stay at ", "grow from ", "shrink from "))


def test_a_view_tells_in_numbers_who_waited_for_whom(stage):
    async def look(views: Any, driver: Any, roles: Any) -> list[JobView]:
        before = await views.now()
        await asyncio.sleep(30.0)
        return [before, await views.now()]

    before, after = looked(stage(make_job(JOB), SimulatedRuntime()), look)
    assert before.time_split == ()
    assert [time.role for time in after.time_split] == ["learner", "reward", "rollout"]
    assert all(abs(time.busy + time.waiting + time.adopting + time.other - 1.0) < 1e-9 for time in after.time_split)


def test_the_learner_has_rates_and_the_time_since_when_it_is_as_it_is(stage):
    async def look(views: Any, driver: Any, roles: Any) -> list[JobView]:
        seen = []
        for _ in range(3):
            seen.append(await views.now())
            await asyncio.sleep(20.0)
        return seen

    views = looked(stage(make_job(JOB), SimulatedRuntime()), look)
    ranks = [pool(view, "learner").members[0] for view in views]
    assert {rank.since_s for rank in ranks} == {views[0].time_s}
    assert all(rank.tokens_per_s > 0 and 0 < rank.busy_share <= 1 for rank in ranks[1:])


def test_a_view_of_a_paused_and_of_a_stopping_job_says_so(stage):
    async def look(views: Any, driver: Any, roles: Any) -> list[str]:
        driver.feed.paused = True
        told = [(await views.now()).state]
        made.stop.set()
        return [*told, (await views.now()).state]

    made = stage(make_job(JOB), SimulatedRuntime())
    assert looked(made, look) == ["paused", "stopping"]


def test_a_lost_worker_is_shown_with_its_reason_and_its_replacement(stage):
    async def look(views: Any, driver: Any, roles: Any) -> JobView:
        await asyncio.sleep(5.0)
        role_of(made, "rollout-0").kill("was shot")
        await asyncio.sleep(5.0)
        return await views.now()

    made = stage(make_job([*JOB, "rollout.spares=0"]), SimulatedRuntime())
    workers = pool(looked(made, look), "rollout worker")
    assert {member.worker_id: member.state for member in workers.members} == {
        "rollout-1": "serving",
        "rollout-2": "serving",
        "rollout-0": "lost",
    }
    assert workers.num_restarts == 1
    assert "was shot" in workers.last_error


def test_a_lost_learner_is_counted_and_its_last_error_shown(stage):
    async def look(views: Any, driver: Any, roles: Any) -> JobView:
        await asyncio.sleep(5.0)
        role_of(made, "learner-0").kill("was shot")
        await asyncio.sleep(20.0)
        return await views.now()

    made = stage(make_job(JOB), SimulatedRuntime())
    learner = pool(looked(made, look), "learner")
    assert [member.worker_id for member in learner.members] == ["learner-0.1"]
    assert (learner.desired, learner.num_restarts) == (1, 1)
    assert "was shot" in learner.last_error


def test_a_role_that_does_not_answer_delays_a_view_no_longer_than_its_bound(stage):
    async def look(views: Any, driver: Any, roles: Any) -> tuple[JobView, float]:
        await asyncio.sleep(5.0)
        role_of(made, "reward-0").hang()
        before_s = made.clock.monotonic()
        return await views.now(), made.clock.monotonic() - before_s

    made = stage(make_job([*JOB, "recovery.unresponsive_s=60"]), SimulatedRuntime())
    view, waited_s = looked(made, look)
    assert waited_s <= 5.0
    assert [member.worker_id for member in pool(view, "reward server").members] == ["reward-0"]


def test_many_looks_ask_the_roles_no_more_often_than_they_should(stage):
    asked: list[float] = []

    class Counts(Statuses):
        async def ask(self) -> Any:
            asked.append(made.clock.monotonic())
            return await super().ask()

    async def act(driver: Any, roles: Any) -> None:
        statuses = Counts(roles, bound_s=5.0)
        views = Views(driver, roles, statuses, epoch=1, stop=made.stop, clock=made.clock)
        for _ in range(100):
            await views.now()
            await asyncio.sleep(0.01)

    made = stage(make_job(["rollout.num_workers=48"]), SimulatedRuntime())
    made.play(act)
    assert 1 <= len(asked) <= 3, "50 roles at 100 a second are asked twice a second"
