"""The pool of a role with roles that fail on command: what is replaced, promoted, drained, told and given up."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Coroutine
from contextlib import nullcontext
from typing import Any

import pytest

from rlhf_cluster.driver.clock import SystemClock
from rlhf_cluster.errors import BudgetSpent, ModelError, RoleDied, RoleTimeout
from rlhf_cluster.flow.restarts import RestartBudget
from rlhf_cluster.records import WorkerStatus
from rlhf_cluster.records.events import WorkerChanged
from rlhf_cluster.runtime.pool import Pool
from rlhf_cluster.runtime.pool_waits import PoolBounds
from rlhf_cluster.runtime.spec import RoleSpec


class Replica:
    """Starts unless it is told to fail or to take forever; remembers how it ended."""

    def __init__(self, worker_id: str, *, start: str = "well") -> None:
        self.worker_id = worker_id
        self.how_to_start = start
        self.ended = ""

    async def start(self) -> None:
        if self.how_to_start == "fails":
            raise ModelError("no model here")
        if self.how_to_start == "hangs":
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.ended = "closed"


class Turns:
    """Counts how many start at the same time."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.order: list[str] = []

    async def __aenter__(self) -> None:
        await self.lock.acquire()
        self.order.append("begins")

    async def __aexit__(self, *error: object) -> None:
        self.order.append("ends")
        self.lock.release()


class KillableReplica(Replica):
    def kill(self) -> None:
        self.ended = self.ended or "killed"


class Machines:
    """A runtime whose replicas do as told by number, and that has room for `room` of them."""

    one_process = False

    def __init__(self, *, room: int = 99, starts: dict[int, str] | None = None, kind: type = KillableReplica) -> None:
        self.room = room
        self.starts = starts or {}
        self.kind = kind
        self.replicas: dict[str, Replica] = {}
        self.more_room = asyncio.Condition()
        self.one_at_a_time: Any = nullcontext()

    async def open(self, spec: RoleSpec) -> Replica:
        number = int(spec.worker_id.removeprefix("w-"))
        replica = self.kind(spec.worker_id, start=self.starts.get(number, "well"))
        self.replicas[spec.worker_id] = replica
        return replica

    async def placed(self, handle: Replica) -> None:
        number = list(self.replicas).index(handle.worker_id)
        await self.has_room(number + 1)

    async def has_room(self, num_wanted: int) -> None:
        async with self.more_room:
            await self.more_room.wait_for(lambda: self.room >= num_wanted)

    async def grow(self, room: int) -> None:
        async with self.more_room:
            self.room = room
            self.more_room.notify_all()

    async def pending_reason(self, spec: RoleSpec) -> str:
        return "there is no room"

    def starting(self) -> Any:
        return self.one_at_a_time

    async def close(self) -> None:
        pass


class Scene:
    def __init__(self, runtime: Machines, *, max_restarts: int = 5, start_s: float = 30.0, **settings: Any) -> None:
        self.runtime = runtime
        self.events: list[WorkerChanged] = []
        self.pool = Pool(
            "reward server",
            lambda number: RoleSpec(
                role="reward server", worker_id=f"w-{number}", factory="", arguments={}, cpus=1, gpus=0
            ),
            runtime,
            **{"size": 2, "spares": 0, "adopts": False} | settings,
            budget=RestartBudget(max_restarts=max_restarts, window_s=600, backoff_s=0.02, max_backoff_s=0.1),
            bounds=PoolBounds(start_s=start_s, close_s=1, ask_s=0.02, pending_s=0.04),
            clock=SystemClock(),
            emit=self.events.append,
            step=lambda: 7,
            jitter=lambda: 0.0,
        )

    async def until(self, condition: Any) -> None:
        while not condition():
            self.pool.changed.clear()
            await asyncio.wait_for(self.pool.changed.wait(), 30)

    def states(self) -> dict[str, str]:
        return {member.worker_id: member.state for member in self.pool.view().members}

    def told(self) -> list[tuple[str, str]]:
        return [(event.worker_id, event.state) for event in self.events]


def play(scene: Scene, story: Coroutine[Any, Any, None]) -> None:
    async def whole() -> None:
        try:
            await story
        finally:
            await scene.pool.aclose()

    asyncio.run(asyncio.wait_for(whole(), 60))


def died(worker_id: str) -> RoleDied:
    return RoleDied(f"{worker_id} died", role="reward server", worker_id=worker_id, activity="score")


def test_start_brings_up_the_size_and_the_spares_follow():
    scene = Scene(Machines(), spares=1)

    async def story() -> None:
        await scene.pool.start()
        assert list(scene.pool.handles()) == ["w-0", "w-1"]
        await scene.until(lambda: scene.states().get("w-2") == "spare")
        assert list(scene.pool.handles()) == ["w-0", "w-1"]

    play(scene, story())
    assert [told for told in scene.told() if told[0] == "w-0"] == [("w-0", "starting"), ("w-0", "serving")]
    assert scene.events[0].step == 7
    assert {replica.ended for replica in scene.runtime.replicas.values()} == {"closed"}


def test_a_failing_first_start_is_raised_as_it_is_and_what_came_up_is_ended():
    scene = Scene(Machines(starts={0: "hangs", 1: "fails"}))
    with pytest.raises(ModelError, match="no model here"):
        play(scene, scene.pool.start())
    assert {replica.ended for replica in scene.runtime.replicas.values()} == {"killed"}


def test_where_roles_share_a_process_they_start_one_after_another():
    runtime = Machines(kind=Replica)
    turns = runtime.one_at_a_time = Turns()
    scene = Scene(runtime, size=3)
    play(scene, scene.pool.start())
    assert turns.order == ["begins", "ends"] * 3


def test_a_failed_start_leaves_no_coroutine_behind():
    scene = Scene(Machines(starts={0: "fails", 1: "fails", 2: "hangs"}), size=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ModelError):
            play(scene, scene.pool.start())
        gc.collect()
    assert [str(warning.message) for warning in caught if "never awaited" in str(warning.message)] == []


def test_a_lost_one_is_killed_and_replaced_and_told_twice_is_once():
    scene = Scene(Machines())

    async def story() -> None:
        await scene.pool.start()
        scene.pool.lost("w-0", died("w-0"))
        scene.pool.lost("w-0", died("w-0"))
        assert scene.runtime.replicas["w-0"].ended == "killed"
        assert list(scene.pool.handles()) == ["w-1"]
        await scene.until(lambda: "w-2" in scene.pool.handles())
        assert scene.pool.view().num_restarts == 1
        assert scene.pool.view().last_error == "w-0 died"

    play(scene, story())
    assert scene.told().count(("w-0", "lost")) == 1


def test_a_lost_one_without_a_process_of_its_own_is_closed():
    scene = Scene(Machines(kind=Replica))

    async def story() -> None:
        await scene.pool.start()
        scene.pool.lost("w-0", died("w-0"))
        await scene.until(lambda: "w-2" in scene.pool.handles())

    play(scene, story())
    assert scene.runtime.replicas["w-0"].ended == "closed"


def test_a_replacement_that_does_not_start_is_tried_again_until_the_budget_is_spent():
    scene = Scene(Machines(starts=dict.fromkeys(range(2, 9), "fails")), max_restarts=3)

    async def story() -> None:
        await scene.pool.start()
        scene.pool.lost("w-0", died("w-0"))
        await scene.until(lambda: scene.pool.failure)

    play(scene, story())
    failure = scene.pool.failure
    assert isinstance(failure, BudgetSpent)
    assert failure.worker_id == "w-4"
    assert "3 replacements within 600 s are spent (see [recovery]). The last cause: no model here" in str(failure)
    assert list(scene.runtime.replicas) == ["w-0", "w-1", "w-2", "w-3", "w-4"]


def test_a_replacement_that_never_ends_starting_is_lost_too():
    scene = Scene(Machines(starts={2: "hangs"}), start_s=0.2)

    async def story() -> None:
        await scene.pool.start()
        scene.pool.lost("w-0", died("w-0"))
        await scene.until(lambda: "w-3" in scene.pool.handles())

    play(scene, story())
    (lost,) = [event for event in scene.events if event.worker_id == "w-2" and event.state == "lost"]
    assert "w-2 did not answer within 0.2 s while starting" in lost.reason


def test_a_pool_that_adopts_waits_for_its_owner():
    scene = Scene(Machines(), size=1, spares=1, adopts=True)

    async def story() -> None:
        await scene.pool.start()
        assert (list(scene.pool.started()), list(scene.pool.handles())) == (["w-0"], [])
        scene.pool.serves("w-0")
        scene.pool.serves("w-0")
        assert (list(scene.pool.started()), list(scene.pool.handles())) == ([], ["w-0"])
        await scene.until(lambda: scene.states().get("w-1") == "spare")
        scene.pool.lost("w-0", died("w-0"))
        assert list(scene.pool.started()) == ["w-1"], "the spare is put to work at once, and adopts"

    play(scene, story())


def test_scaling_out_opens_and_scaling_in_drains_until_the_owner_says_so():
    scene = Scene(Machines())

    async def story() -> None:
        await scene.pool.start()
        scene.pool.resize(3)
        await scene.until(lambda: len(scene.pool.handles()) == 3)
        scene.pool.resize(1)
        assert list(scene.pool.handles()) == ["w-0"]
        assert list(scene.pool.draining()) == ["w-1", "w-2"]
        scene.pool.drained("w-2")
        scene.pool.drained("w-2")
        assert scene.states() == {"w-0": "serving", "w-1": "draining"}

    play(scene, story())
    assert scene.told().count(("w-2", "closed")) == 1


def test_draining_one_lowers_the_size():
    scene = Scene(Machines())

    async def story() -> None:
        await scene.pool.start()
        assert scene.pool.drain("w-0")
        assert not scene.pool.drain("w-0")
        assert not scene.pool.drain("w-9")
        scene.pool.drained("w-0")
        assert (scene.pool.size, scene.states()) == (1, {"w-1": "serving"})

    play(scene, story())


def test_one_without_a_machine_is_pending_with_the_reason_until_there_is_room():
    scene = Scene(Machines(room=2), start_s=0.1)

    async def story() -> None:
        await scene.pool.start()
        scene.pool.resize(3)
        await scene.until(lambda: scene.events[-1].state == "pending")
        assert scene.pool.view().members[2].reason == "there is no room"
        await asyncio.sleep(0.2)
        assert scene.states()["w-2"] == "pending", "without a bound, while others serve"
        await scene.runtime.grow(3)
        await scene.until(lambda: "w-2" in scene.pool.handles())

    play(scene, story())
    assert scene.told().count(("w-2", "pending")) == 1


def test_a_first_one_without_a_machine_is_bounded():
    scene = Scene(Machines(room=1), start_s=0.1)
    with pytest.raises(RoleTimeout, match=r"w-1 got no machine within 0\.1 s: there is no room"):
        play(scene, scene.pool.start())


def test_views_hold_what_members_said_and_their_rates():
    scene = Scene(Machines(), size=1)

    def said(tokens_total: int) -> WorkerStatus:
        return WorkerStatus(
            role="", worker_id="w-0", state="busy", activity="", tokens_total=tokens_total, busy_s=0.0, process_id=42
        )

    async def story() -> None:
        await scene.pool.start()
        assert scene.pool.view().members[0].process_id == 0
        scene.pool.view({"w-0": said(0)})
        await asyncio.sleep(0.01)
        (member,) = scene.pool.view({"w-0": said(100)}).members
        assert (member.process_id, member.state) == (42, "serving")
        assert 0 < member.tokens_per_s < 100 / 0.01

    play(scene, story())
