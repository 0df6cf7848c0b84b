"""The place of the learner group: ranks are opened, killed and replaced together. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_cluster.errors import BudgetSpent, ModelError, RoleDied, RoleError, RoleTimeout
from rlhf_cluster.flow.restarts import RestartBudget
from rlhf_cluster.runtime.learner_host import LearnerHost
from rlhf_cluster.testing import BareSpecs, virtual_time
from rlhf_cluster.testing.faults import FaultPlan
from rlhf_cluster.testing.faulty_roles import FaultyRole
from rlhf_cluster.testing.fleet import Pace, SimulatedRole, SimulatedRuntime
from rlhf_cluster.testing.virtual_time import VirtualClock

DIED = RoleDied("learner learner-1 was killed", role="learner", worker_id="learner-1", activity="updating on step 3")
START_S = 20.0


class Scene:
    def __init__(
        self,
        change: Callable[[SimulatedRole], Any] = lambda role: None,
        *,
        spare: bool = False,
        max_restarts: int = 9,
        log_dir: Path | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.runtime = SimulatedRuntime(Pace(learner_start_s=START_S), wrap=lambda role: change(role) or role)
        specs = BareSpecs(num_ranks=2)
        self.host = LearnerHost(
            self.runtime,
            make_specs=lambda number: [replace(spec, log_dir=log_dir) for spec in specs.learner(number)],
            spare=spare,
            budget=RestartBudget(max_restarts=max_restarts, window_s=600, backoff_s=4, max_backoff_s=60),
            start_s=100.0,
            close_s=10.0,
            monotonic=self.clock.monotonic,
        )

    def names(self, *, alive: bool = False) -> list[str]:
        return [role.worker_id for role in self.runtime.opened if not alive or role.death is None]

    def role(self, worker_id: str) -> SimulatedRole:
        return next(role for role in self.runtime.opened if role.worker_id == worker_id)

    async def seconds(self, work: Coroutine[Any, Any, Any]) -> float:
        started_s = self.clock.monotonic()
        await work
        return self.clock.monotonic() - started_s


def play(scene: Scene, act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    async def whole() -> Any:
        try:
            return await act()
        finally:
            await scene.host.aclose()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others

    return virtual_time.run(whole(), clock=scene.clock)


def test_all_ranks_start_together_and_rank_0_names_the_group():
    scene = Scene()

    async def act() -> None:
        assert await scene.seconds(scene.host.start()) == pytest.approx(START_S)
        assert scene.host.worker_id == "learner-0"
        assert list(scene.host.members) == ["learner-0", "learner-1"]
        assert len(scene.host.group.ranks) == 2

    play(scene, act)
    assert scene.names(alive=True) == [], "closed at the end"


def test_replacing_kills_every_rank_of_the_group_and_opens_as_many():
    scene = Scene()

    async def act() -> None:
        await scene.host.start()
        before = scene.host.group
        after = await scene.host.replace(DIED)
        assert after is scene.host.group is not before
        assert scene.names(alive=True) == list(scene.host.members) == ["learner-0.1", "learner-1.1"]
        assert (scene.host.num_restarts, scene.host.last_error) == (1, str(DIED))

    play(scene, act)


def test_a_rank_that_hangs_is_killed_with_the_others_at_once():
    scene = Scene()

    async def act() -> None:
        await scene.host.start()
        scene.role("learner-1").hang()
        assert await scene.seconds(scene.host.replace(DIED)) == pytest.approx(START_S)
        assert scene.role("learner-1").death

    play(scene, act)


def test_a_spare_is_taken_at_once_and_another_one_made_ready():
    scene = Scene(spare=True)

    async def act() -> None:
        await scene.host.start()
        await asyncio.sleep(2 * START_S)
        assert scene.names() == ["learner-0", "learner-1", "learner-0.1", "learner-1.1"]
        assert list(scene.host.members) == ["learner-0", "learner-1"], "the spare is none of the group"
        assert await scene.seconds(scene.host.replace(DIED)) < 1.0
        assert list(scene.host.members) == ["learner-0.1", "learner-1.1"]
        await asyncio.sleep(1.0)
        assert scene.names(alive=True)[-2:] == ["learner-0.2", "learner-1.2"]

    play(scene, act)
    assert scene.names(alive=True) == []


def test_a_spare_that_is_still_starting_is_ahead_of_a_new_group():
    scene = Scene(spare=True)

    async def act() -> None:
        await scene.host.start()
        await asyncio.sleep(START_S / 2)
        assert await scene.seconds(scene.host.replace(DIED)) == pytest.approx(START_S / 2)

    play(scene, act)


@pytest.mark.parametrize("how", ["kill", "hang"])
def test_a_spare_that_died_unseen_is_no_second_loss_and_a_new_group_is_opened(how):
    scene = Scene(spare=True, max_restarts=1)

    async def act() -> None:
        await scene.host.start()
        await asyncio.sleep(2 * START_S)
        getattr(scene.role("learner-1.1"), how)()
        group = await scene.host.replace(DIED)
        assert list(scene.host.members) == ["learner-0.2", "learner-1.2"]
        assert (await group.publish()).version == 0
        assert scene.role("learner-0.1").death

    play(scene, act)


class Fails(FaultyRole):
    """A rank that does not start, by its incarnation."""

    def __init__(self, role: SimulatedRole, error: Exception) -> None:
        super().__init__(role, FaultPlan(seed=0))
        self._error = error

    async def start(self, meeting_point: Any) -> None:
        raise self._error


def fails(error: Exception, *worker_ids: str) -> Callable[[SimulatedRole], Any]:
    return lambda role: Fails(role, error) if role.worker_id in worker_ids else None


def test_a_group_that_does_not_start_is_followed_by_another_after_a_wait():
    scene = Scene(fails(DIED, "learner-1.1"))

    async def act() -> None:
        await scene.host.start()
        assert await scene.seconds(scene.host.replace(DIED)) == pytest.approx(4.0 + START_S)
        assert list(scene.host.members) == ["learner-0.2", "learner-1.2"]
        assert scene.names(alive=True) == ["learner-0.2", "learner-1.2"], "nothing of the failed start is left"

    play(scene, act)


def test_a_spare_that_does_not_start_is_no_second_loss_and_a_new_group_is_opened():
    scene = Scene(fails(DIED, "learner-1.1"), spare=True, max_restarts=1)

    async def act() -> None:
        await scene.host.start()
        await asyncio.sleep(2 * START_S)
        await scene.host.replace(DIED)
        assert list(scene.host.members) == ["learner-0.2", "learner-1.2"]

    play(scene, act)


def test_a_first_group_that_dies_is_tried_once_more():
    scene = Scene(fails(DIED, "learner-1"))

    async def act() -> None:
        await scene.host.start()
        assert list(scene.host.members) == ["learner-0.1", "learner-1.1"]

    play(scene, act)


def test_a_first_group_that_fails_for_a_reason_of_the_job_is_not():
    scene = Scene(fails(ModelError("no model here"), "learner-0"))
    with pytest.raises(ModelError, match="no model here"):
        play(scene, scene.host.start)
    assert scene.names(alive=True) == []


def test_a_start_that_never_ends_is_bounded_and_named():
    scene = Scene()
    scene.runtime.pace = Pace(learner_start_s=1e9)
    with pytest.raises(RoleTimeout, match=r"learner learner-0\.1 did not answer within 100 s while starting"):
        play(scene, scene.host.start)


def test_a_spent_budget_names_the_last_cause_with_the_last_lines_of_that_rank(tmp_path):
    (tmp_path / "learner-1.log").write_text("loading\nCUDA error: out of memory\n")
    scene = Scene(max_restarts=0, log_dir=tmp_path)

    async def act() -> RoleError:
        await scene.host.start()
        with pytest.raises(BudgetSpent) as raised:
            await scene.host.replace(DIED)
        return raised.value

    error = play(scene, act)
    assert "the learner was lost 1 times" in str(error)
    assert str(DIED) in str(error)
    assert str(error).endswith("last lines of learner-1:\nloading\nCUDA error: out of memory")
    assert (error.role, error.worker_id, error.activity) == ("learner", "learner-1", "updating on step 3")
    assert scene.names(alive=True) == []


def test_a_rank_that_does_not_close_is_killed():
    scene = Scene()

    async def act() -> None:
        await scene.host.start()
        scene.role("learner-1").hang()

    play(scene, act)
    assert scene.names(alive=True) == []
    assert scene.clock.monotonic() <= START_S + 11.0
