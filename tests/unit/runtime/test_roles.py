"""Which roles a job has, and what each pool is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rlhf_cluster.config import JobConfig
from rlhf_cluster.records.events import WorkerChanged
from rlhf_cluster.runtime.roles import Roles, make_roles, open_roles
from rlhf_cluster.testing import BareSpecs, FakeClock, make_job, virtual_time
from rlhf_cluster.testing.fleet import Pace, SimulatedRuntime
from rlhf_cluster.testing.virtual_time import VirtualClock


def made(*overrides: str) -> Roles:
    job = make_job(overrides)
    return make_roles(SimulatedRuntime(), job, BareSpecs(), clock=FakeClock(), emit=lambda event: None)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], ["rollout", "reward"]),
        (["algorithm.kl_coef=0.1"], ["rollout", "reward", "reference"]),
        (["algorithm.type=sft", "rewards=[]", "train.learn_from=rollouts"], ["rollout"]),
        (["algorithm.type=sft"], []),
    ],
)
def test_a_job_has_the_roles_it_needs_by_the_names_that_scale_takes(overrides, names):
    assert list(made(*overrides).pools) == names


def test_each_pool_has_its_own_size():
    roles = made("rollout.num_workers=3", "reward_server.num_workers=2", "algorithm.kl_coef=0.1")
    assert {name: pool.size for name, pool in roles.pools.items()} == {"rollout": 3, "reward": 2, "reference": 1}


def test_what_is_wanted_beyond_the_job_does_not_hold_up_the_start_on_a_cluster():
    job = make_job(["rollout.num_workers=3", "reward_server.num_workers=2"])
    sizes = {"rollout": 1, "reward": 5, "reference": 4}
    options: dict[str, Any] = {"clock": FakeClock(), "emit": lambda event: None}
    roles = make_roles(SimulatedRuntime(), job, BareSpecs(), sizes=sizes, **options)
    assert {name: pool.size for name, pool in roles.pools.items()} == {"rollout": 1, "reward": 2}


def test_in_one_process_all_that_is_wanted_starts_one_after_the_other():
    runtime = SimulatedRuntime()
    runtime.one_process = True
    job = make_job(["rollout.num_workers=3"])
    options: dict[str, Any] = {"clock": FakeClock(), "emit": lambda event: None}
    roles = make_roles(runtime, job, BareSpecs(), sizes={"rollout": 1, "reward": 5}, **options)
    assert {name: pool.size for name, pool in roles.pools.items()} == {"rollout": 1, "reward": 5}


def test_open_roles_grow_to_what_is_wanted():
    runtime, clock = SimulatedRuntime(Pace()), VirtualClock()

    async def whole() -> list[tuple[int, int]]:
        sizes, job = {"rollout": 4, "reward": 2}, make_job(["rollout.num_workers=2"])
        async with open_roles(runtime, job, BareSpecs(), sizes=sizes, clock=clock) as roles:
            at_first = (len(roles.rollout.started()), len(roles.reward.handles()))
            await asyncio.sleep(10.0)
            return [at_first, (len(roles.rollout.started()), len(roles.reward.handles()))]

    assert virtual_time.run(whole(), clock=clock) == [(2, 1), (4, 2)]


def opened(job: JobConfig, **options: Any) -> tuple[SimulatedRuntime, list[WorkerChanged], list[dict[str, Any]]]:
    """The runtime, what was told, and the handles of every pool while all was open."""
    runtime, clock = SimulatedRuntime(Pace()), VirtualClock()
    events: list[WorkerChanged] = []

    async def whole() -> list[dict[str, Any]]:
        async with open_roles(runtime, job, BareSpecs(), clock=clock, emit=events.append, **options) as roles:
            return [pool.handles() or pool.started() for pool in roles.pools.values()]

    return runtime, events, virtual_time.run(whole(), clock=clock)


def test_rollout_workers_wait_for_weights_and_reward_servers_serve_at_once():
    _, events, (workers, servers) = opened(make_job(["rollout.num_workers=2"]))
    assert (list(workers), list(servers)) == (["rollout-0", "rollout-1"], ["reward-0"])
    last = {event.worker_id: event.state for event in events}
    assert last == {"rollout-0": "adopting", "rollout-1": "adopting", "reward-0": "serving"}


def test_everything_is_closed_at_the_end():
    runtime, _, _ = opened(make_job())
    assert {role.death for role in runtime.opened} == {"is closed"}


def test_events_carry_the_step_that_the_job_is_at():
    _, events, _ = opened(make_job(), step=lambda: 7)
    assert {event.step for event in events} == {7}
