"""Every fault strikes as its name says, counts when it did, and comes from nothing but the seed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fleet_stage import columns, groups_of, handle_of, request

from rlhf_cluster.errors import FingerprintMismatch, NotServing, RoleDied
from rlhf_cluster.records import Batch
from rlhf_cluster.testing import make_group
from rlhf_cluster.testing.faults import GARBAGE, KINDS, FaultPlan
from rlhf_cluster.testing.faulty_roles import with_faults
from rlhf_cluster.testing.fleet import SimulatedRank, SimulatedRewardServer, SimulatedScorer, SimulatedWorker
from rlhf_cluster.testing.virtual_time import run


async def faulty_worker(plan: FaultPlan, worker_id: str = "rollout-0"):
    """It has adopted before the faults begin."""
    worker = SimulatedWorker(worker_id, seconds_of=lambda request: 10.0, tokens_per_completion=10)
    await worker.adopt(await handle_of(1))
    return with_faults(plan)(worker)


def always(*kinds: str, **plan) -> FaultPlan:
    return FaultPlan(seed=0, kinds=kinds, rate=1.0, **plan)


def test_a_worker_dies_within_its_call():
    async def main():
        plan = always("die")
        worker = await faulty_worker(plan)
        with pytest.raises(RoleDied, match="died of die"):
            await groups_of(worker, request())
        with pytest.raises(RoleDied):
            await worker.status()
        return plan.fired

    assert run(main()) == {"die": 1}


def test_a_hung_worker_answers_nothing_until_it_is_killed():
    async def main():
        plan = always("hang")
        worker = await faulty_worker(plan)
        reading = asyncio.create_task(groups_of(worker, request()))
        await asyncio.sleep(1_000)
        assert not reading.done()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.status(), 1_000)
        worker.kill()
        with pytest.raises(RoleDied):
            await reading
        return plan.fired

    assert run(main()) == {"hang": 1}


def test_a_stalled_worker_tells_its_status_and_makes_no_token():
    async def main():
        plan = always("stall")
        worker = await faulty_worker(plan)
        reading = asyncio.create_task(groups_of(worker, request()))
        await asyncio.sleep(20)
        first = await worker.status()
        await asyncio.sleep(20)
        second = await worker.status()
        await worker.drain()
        [group] = await reading
        return plan.fired, first, second, group

    fired, first, second, group = run(main())
    assert fired == {"stall": 1}
    assert first.tokens_total == second.tokens_total == group.num_tokens
    assert second.num_in_flight == 1
    assert not group.is_finished


def test_a_slow_worker_takes_ten_times_as_long():
    async def main():
        plan = always("slow")
        worker = await faulty_worker(plan)
        await groups_of(worker, request(0))
        started_s = asyncio.get_running_loop().time()
        await groups_of(worker, request(1))
        return asyncio.get_running_loop().time() - started_s

    assert run(main()) == pytest.approx(100.0)


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_what_no_true_answer_can_be(kind: str):
    async def main():
        plan = always(kind)
        [group] = await groups_of(await faulty_worker(plan), request())
        return plan.fired, group

    fired, group = run(main())
    assert fired == {kind: 1}
    wrong = {
        "garbage_count": group.num_completions != 2,
        "garbage_logprobs": np.isnan(group.logprobs).all(),
        "garbage_id": group.request_id != 0,
        "garbage_version": group.versions.min() > 100,
    }
    assert [name for name, is_wrong in wrong.items() if is_wrong] == [kind]


def test_a_refused_adopt_leaves_the_worker_serving_nothing():
    async def main():
        plan = always("refuse", max_faults=1)
        worker = await faulty_worker(plan)
        with pytest.raises(FingerprintMismatch):
            await worker.adopt(await handle_of(2))
        with pytest.raises(NotServing):
            await groups_of(worker, request())
        await worker.adopt(await handle_of(2))
        await groups_of(worker, request())
        return plan.fired

    assert run(main()) == {"refuse": 1}


def test_poison_kills_every_worker_that_gets_it():
    async def main():
        plan = FaultPlan(seed=0, poison=["1/0"])
        for worker_id in ("rollout-0", "rollout-1"):
            worker = await faulty_worker(plan, worker_id)
            assert len(await groups_of(worker, request(0))) == 1
            with pytest.raises(RoleDied, match="poison"):
                await groups_of(worker, request(1))
        return plan.fired

    assert run(main()) == {"poison": 2}


@pytest.mark.parametrize("kind", ["learner_die", "learner_hang"])
def test_a_learner_fails_in_the_middle_of_its_update(kind: str):
    async def main():
        plan, learner = always(kind), SimulatedRank(update_s=8.0)
        update = with_faults(plan)(learner).update(None, Batch(step=0, groups=(make_group([2]),)))
        with pytest.raises((RoleDied, TimeoutError)):
            await asyncio.wait_for(update, 60)
        return plan.fired, learner.version

    assert run(main()) == ({kind: 1}, 0)


def test_a_failing_reward_server_gives_no_reward_at_all():
    async def main():
        plan = always("reward_invalid", "reference_die", max_faults=1)
        [group] = await with_faults(plan)(SimulatedRewardServer()).score([make_group([2, 3])])
        [unharmed] = await with_faults(plan)(SimulatedScorer()).logprobs([group])
        return plan.fired, unharmed

    fired, group = run(main())
    assert fired == {"reward_invalid": 1}
    assert np.isnan(group.rewards).all()
    assert [failure.kind for failure in group.invalid] == ["unavailable"] * 2


def test_equal_seeds_give_equal_faults_and_equal_groups():
    async def day(seed: int):
        plan = FaultPlan(seed=seed, kinds=KINDS, rate=0.2)
        told = []
        for number in range(40):
            worker = await faulty_worker(plan, f"rollout-{number}")
            try:
                groups = await asyncio.wait_for(groups_of(worker, request(number), request(number + 100)), 500)
                told.append([columns(group) for group in groups])
            except (RoleDied, TimeoutError) as error:
                told.append(repr(error))
        return repr(told), plan.fired, asyncio.get_running_loop().time()

    one, same, other = run(day(1)), run(day(1)), run(day(2))
    assert one == same
    assert one != other
    assert len(one[1]) > 2


def test_an_unknown_fault_is_named_with_the_nearest_known():
    with pytest.raises(ValueError, match="did you mean 'stall'"):
        FaultPlan(seed=0, kinds=["stal"])
