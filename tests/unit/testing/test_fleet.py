"""Simulated learners, servers and the runtime that opens them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fleet_stage import groups_of, now_s, request

from rlhf_cluster.errors import RoleDied, WeightsUnavailable
from rlhf_cluster.learner.group import LearnerGroup
from rlhf_cluster.learner.settings import LearnerSettings
from rlhf_cluster.learner.spec import LearnerSpec
from rlhf_cluster.records import Batch
from rlhf_cluster.runtime.spec import RoleSpec
from rlhf_cluster.testing import make_group
from rlhf_cluster.testing.fleet import (
    Pace,
    SimulatedRank,
    SimulatedRewardServer,
    SimulatedRuntime,
    SimulatedScorer,
)
from rlhf_cluster.testing.virtual_time import run


def batch(step: int, *, seed: int = 0) -> Batch:
    return Batch(step=step, groups=(make_group([3, 4], request_id=step, seed=seed, version=step),))


async def trained(rank: SimulatedRank, *batches: Batch) -> list[float]:
    return [(await rank.update(None, one)).metrics["learner/loss"] for one in batches]


def test_equal_histories_have_equal_losses_and_others_have_not():
    async def main():
        one, same, other = SimulatedRank(), SimulatedRank(), SimulatedRank()
        await trained(one, batch(0), batch(1), batch(2))
        await trained(same, batch(0), batch(1), batch(2))
        await trained(other, batch(0), batch(1, seed=1), batch(2))
        return one.loss_history, same.loss_history, other.loss_history

    one, same, other = run(main())
    assert one == same
    assert one[0] == other[0]
    assert one[1] != other[1]
    assert one[2] != other[2], "what was trained once is never forgotten"


def test_a_learner_goes_on_from_its_checkpoint(tmp_path: Path):
    async def main():
        first, second = SimulatedRank(), SimulatedRank()
        await trained(first, batch(0), batch(1))
        await first.save(tmp_path / "checkpoint", with_state=True)
        await trained(first, batch(2))
        await second.load(tmp_path / "checkpoint")
        await trained(second, batch(2))
        return first, second

    first, second = run(main())
    assert first.loss_history == second.loss_history
    assert first.version == second.version == 3


def test_an_update_takes_its_time_and_is_not_applied_by_one_who_dies_in_it():
    async def main():
        rank = SimulatedRank(update_s=5.0)
        await trained(rank, batch(0))
        assert now_s() == 5.0
        pending = asyncio.create_task(rank.update(None, batch(1)))
        await asyncio.sleep(2)
        assert (await rank.status()).activity == "updating on step 1"
        rank.kill()
        with pytest.raises(RoleDied):
            await pending
        return rank.version

    assert run(main()) == 1


def test_ranks_make_a_group_whose_first_publishes():
    async def main():
        group = LearnerGroup([SimulatedRank(f"learner-{n}", rank=n, author=(2, n)) for n in range(2)])
        await group.start()
        with pytest.raises(WeightsUnavailable):
            await group.publish_full()
        await group.update(None, batch(0))  # type: ignore[arg-type]
        handle = await group.publish()
        return handle, await group.publish_full()

    handle, again = run(main())
    assert (handle.version, handle.author) == (1, (2, 0))
    assert again.manifest == handle.manifest


def test_servers_fill_their_columns():
    async def main():
        groups = [make_group([3, 4]), make_group([2], request_id=1)]
        scored = await SimulatedRewardServer(score_s=0.5).score(groups)
        return scored, await SimulatedScorer().logprobs(scored), now_s()

    scored, referenced, seconds = run(main())
    assert [group.rewards.tolist() for group in scored] == [[0.0, 1.0], [0.0]]
    assert all((group.reference_logprobs == group.logprobs).all() for group in referenced)
    assert seconds == 0.5


def spec(role: str, worker_id: str, **arguments) -> RoleSpec:
    return RoleSpec(role=role, worker_id=worker_id, factory="none:None", arguments=arguments, cpus=1, gpus=0)


def learner_spec() -> LearnerSpec:
    return LearnerSpec(
        settings=LearnerSettings(),
        model_path=Path(),
        temperature=1.0,
        num_steps=1,
        seed=0,
        serving_dtype="float32",
        probe_token_ids=request().prompt.token_ids,
        probe_tolerance=1.0,
        author=(3, 1),
    )


def test_a_runtime_opens_every_role_with_the_pace_it_was_given():
    async def main():
        runtime = SimulatedRuntime(Pace(place_s=4.0, worker_start_s=3.0, adopt_s=2.0, publish_s=0.5, slots=1))
        rank = await runtime.open(spec("learner", "learner-0", spec=learner_spec(), rank=0))
        worker = await runtime.open(spec("rollout worker", "rollout-7"))
        server = await runtime.open(spec("reward server", "reward-0"))
        await runtime.open(spec("reference scorer", "reference-0"))
        await runtime.placed(worker)
        await worker.start()
        handle = await rank.publish()
        await worker.adopt(handle)
        groups = await groups_of(worker, request(0), request(1))
        assert runtime.newest("rollout worker") is worker
        await runtime.close()
        with pytest.raises(RoleDied, match="ended with its runtime"):
            await server.score(groups)
        return handle.author, now_s()

    assert run(main()) == ((3, 1), 4.0 + 3.0 + 0.5 + 2.0 + 2.0)
