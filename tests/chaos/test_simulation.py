"""A thousand jobs in virtual time: the real driver against faults, scaling and its own death; everything by seed."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path

import pytest

from rlhf_cluster.config import JobConfig
from rlhf_cluster.driver.control import Control
from rlhf_cluster.driver.sizes import Bounds, read_desired
from rlhf_cluster.records.commands import Autoscale, Scale
from rlhf_cluster.testing import make_job
from rlhf_cluster.testing.faults import KINDS, FaultPlan
from rlhf_cluster.testing.faulty_roles import with_faults
from rlhf_cluster.testing.fleet import Pace, lognormal

from .simulated_job import Killed, SimulatedJob

BLOCK = 100
BLOCKS = [*range(4), *(pytest.param(block, marks=pytest.mark.long) for block in range(4, 10))]
"""Of so many seeds each: four hundred in `make test`, and with `make test-long` the thousand."""
NUM_STEPS = 4
ENDS = {"done", "BudgetSpent", "TooManyInvalid", "DataError"}
"""A job ends well, or says that its roles were lost too often, that its rewards fail, or that prompts teach nothing."""
AT_START = {"RoleDied", "RoleTimeout"}
"""And, before it has a first step, that a role which was tried twice does not start."""


def job_of(seed: int, *overrides: str) -> JobConfig:
    """Staleness, number of workers and spares vary with the seed."""
    return make_job(
        [
            f"train.num_steps={NUM_STEPS}",
            "train.prompts_per_step=3",
            f"train.max_staleness={seed % 3}",
            f"rollout.num_workers={1 + seed % 4}",
            f"rollout.spares={seed % 2}",
            f"algorithm.kl_coef={0.1 * (seed % 2)}",
            "rollout.max_in_flight=2",
            "reward_server.num_workers=2",
            "reward_server.max_invalid_rate=0.9",
            "checkpoint.every_steps=2",
            "recovery.hedge_s=10",
            "recovery.stall_s=60",
            "recovery.unresponsive_s=20",
            "recovery.learner_stall_s=60",
            "recovery.max_restarts=30",
            *overrides,
        ]
    )


def simulated(seed: int, job_dir: Path, *, plan: FaultPlan | None = None, job: JobConfig | None = None) -> SimulatedJob:
    pace = Pace(seconds_of=lognormal(1.0, mean_s=5.0, cap_s=40.0, seed=seed))
    wrap = with_faults(plan) if plan else lambda role: role
    return SimulatedJob(job=job or job_of(seed), job_dir=job_dir, pace=pace, wrap=wrap)


def kill_at(number: int):
    """The driver is killed at its `number`-th transition."""
    seen = 0

    def at(transition: str) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise Killed(transition)

    return at


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_whatever_fails_the_job_ends_and_its_ledger_is_clean(block, tmp_path):
    ends, fired = Counter(), Counter()
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        plan = FaultPlan(seed=seed, kinds=KINDS, rate=0.08, max_faults=6)
        job = simulated(seed, tmp_path / str(seed), plan=plan)
        job.job_dir.mkdir()
        try:
            end = job.outcome()
            assert end in ENDS or (end in AT_START and not job.losses())
            job.check()
        except BaseException as error:
            error.add_note(f"seed {seed}: {dict(plan.fired)}")
            raise
        ends[end] += 1
        fired += plan.fired
        shutil.rmtree(job.job_dir)
    assert ends["done"] >= 0.95 * ends.total()
    assert set(fired) == set(KINDS)


@pytest.mark.parametrize("seed", range(6))
def test_a_driver_killed_at_any_transition_and_resumed_learns_what_it_would_have(seed, tmp_path):
    whole = simulated(seed, tmp_path / "whole", job=job_of(seed, "train.max_staleness=0", "checkpoint.keep=9"))
    transitions: list[str] = []
    whole.job_dir.mkdir()
    whole.run(at=transitions.append)
    for number in range(1, len(transitions) + 1):
        job = simulated(seed, tmp_path / str(number), job=whole.job)
        job.job_dir.mkdir()
        with pytest.raises(Killed):
            job.run(at=kill_at(number))
        job.run()
        assert job.losses() == whole.losses(), transitions[number - 1]
        job.check()


@pytest.mark.parametrize("seed", range(12))
def test_a_driver_killed_over_and_over_loses_and_doubles_nothing(seed, tmp_path):
    job = simulated(seed, tmp_path, plan=FaultPlan(seed=seed, kinds=KINDS, rate=0.02))
    for number in range(2, 12):
        try:
            job.run(at=kill_at(number))
        except Killed:
            job.check()
        else:
            break
    assert job.outcome() == "done"
    job.check()


@pytest.mark.parametrize("seed", range(20))
def test_workers_come_and_go_under_load_and_nothing_is_lost(seed, tmp_path):
    job = simulated(seed, tmp_path, job=job_of(seed, "train.num_steps=8"))
    sizes: list[int] = []

    async def scale(driver, roles) -> None:
        for size in (4, 1, 3, 2):
            await asyncio.sleep(6.0)
            roles.rollout.resize(size)
            await asyncio.sleep(4.0)
            sizes.append(len(driver.fleet.serving()))
            if seed % 2:
                roles.rollout.drain(driver.fleet.serving()[0]) if size > 1 else None

    job.run(beside=scale)
    job.check()
    assert len(set(sizes)) > 1


def auto(least: int, most: int) -> Autoscale:
    return Autoscale(role="rollout", min_workers=least, max_workers=most)


@pytest.mark.parametrize("seed", range(20))
def test_the_policy_is_switched_on_and_off_under_load_and_nothing_is_lost(seed, tmp_path):
    job = simulated(seed, tmp_path, job=job_of(seed, "train.num_steps=40"))
    within: list[bool] = []

    async def switch(driver, roles) -> None:
        control = Control(driver, roles, stop=asyncio.Event())
        for wanted, least, most in (
            (auto(3, 6), 3, 6),
            (Scale(role="rollout", num_workers=2), 2, 2),
            (auto(1, 2), 1, 2),
            (auto(4, 4), 4, 4),
            (Scale(role="rollout", num_workers=1), 1, 1),
        ):
            await asyncio.sleep(15.0)
            await control.obey(wanted)
            for _ in range(5):
                within.append(least <= roles.rollout.size <= most)
                await asyncio.sleep(3.0)
        within.append(len(driver.fleet.serving()) == 1)

    job.run(beside=switch)
    job.check()
    assert len(within) == 26, "the job ended before all was asked"
    assert all(within)


def test_a_driver_killed_while_a_policy_scales_is_resumed_with_what_was_wanted_last(tmp_path):
    job = simulated(1, tmp_path, job=job_of(1, "train.num_steps=30"))

    async def turn_on(driver, roles) -> None:
        await asyncio.sleep(5.0)
        await Control(driver, roles, stop=asyncio.Event()).obey(auto(3, 4))

    with pytest.raises(Killed):
        job.run(at=kill_at(40), beside=turn_on)
    wanted = read_desired(tmp_path)
    assert wanted["rollout"].bounds == Bounds(min_workers=3, max_workers=4)
    began: list[tuple[int, object]] = []

    async def look(driver, roles) -> None:
        began.append((roles.rollout.size, driver.pacing.sizes.bounds))

    job.run(beside=look)
    job.check()
    assert began == [(wanted["rollout"].num_workers, wanted["rollout"].bounds)]


def test_a_paused_job_sends_nothing_out_and_goes_on_where_it_was(tmp_path):
    job = simulated(2, tmp_path)
    counts: list[int] = []

    async def pause(driver, roles) -> None:
        await asyncio.sleep(10.0)
        driver.feed.paused = True
        await asyncio.sleep(500.0)
        counts.append(driver.feed.buffer.snapshot().num_dispatched)
        await asyncio.sleep(500.0)
        counts.append(driver.feed.buffer.snapshot().num_dispatched)
        driver.feed.paused = False

    assert job.run(beside=pause) > 1000
    assert counts[0] == counts[1] > 0
    job.check()


def test_a_poison_prompt_is_quarantined_with_its_evidence_and_the_others_are_trained_on(tmp_path):
    from rlhf_cluster.records.events import PromptQuarantined

    plan = FaultPlan(seed=0, poison={"5/0", "77/0"})
    job = simulated(0, tmp_path, plan=plan, job=job_of(3, "train.prompts_per_step=8"))
    job.num_rows = 80
    job.run()
    job.check()
    found = [event for event in job.events if isinstance(event, PromptQuarantined)]
    assert {event.prompt_id for event in found} <= {"5/0", "77/0"}
    assert found
    assert all(len(event.evidence) == 3 for event in found)
    assert plan.fired["poison"] >= 3
