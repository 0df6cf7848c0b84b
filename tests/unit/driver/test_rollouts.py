"""Keeping workers busy: what is dropped, refilled, removed and counted, what ends the job, how old a batch may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhf_cluster.errors import DataError, NotServing, RoleError, RoleTimeout, TooManyInvalid
from rlhf_cluster.records import RolloutGroup
from rlhf_cluster.records.events import GroupDropped, RewardFailed
from rlhf_cluster.rewards.sample import Failure
from rlhf_cluster.testing import FakeRewardServer, fake_roles, make_job, rewards_that_differ, scripted_worker

BOUND_S = 20.0
LOST = Failure(kind="raised", message="ValueError: no such thing")


def play(stage: Any, act: Callable[[], Awaitable[Any]]) -> Any:
    """Run `act` with weights adopted, and close everything after."""

    async def whole() -> Any:
        await stage.serve()
        try:
            return await asyncio.wait_for(act(), BOUND_S)
        finally:
            await stage.close()

    return asyncio.run(whole())


def equal_for(*request_ids: int) -> Callable[[RolloutGroup], list[float]]:
    return lambda group: [1.0] * 2 if group.request_id in request_ids else rewards_that_differ(group)


def ids(groups: Any) -> list[int]:
    return [group.request_id for group in groups]


def test_a_batch_is_the_oldest_requests_in_order_with_texts_and_rewards(stage):
    made = stage(make_job())
    groups = play(made, made.rollouts.gather)
    assert ids(groups) == [0, 1]
    for group in groups:
        assert len(group.texts) == 2
        assert group.rewards.tolist() == [0.0, 1.0]
        assert group.worker_id == "rollout-0"


def test_groups_without_variance_are_dropped_and_other_prompts_take_their_place(stage):
    made = stage(make_job(), fake_roles(reward=FakeRewardServer(equal_for(0, 2))))
    groups = play(made, made.rollouts.gather)
    assert ids(groups) == [1, 3]
    dropped = made.seen(GroupDropped)
    assert [(event.request_id, event.reason) for event in dropped] == [(0, "zero_variance"), (2, "zero_variance")]
    assert made.rollouts.take_tally().num_dropped == 2
    assert made.rollouts.take_tally().num_dropped == 0, "a tally is taken once"


def test_invalid_completions_leave_their_group_and_are_counted(stage):
    def judge(group: RolloutGroup) -> list[Any]:
        return [LOST, 1.0, 2.0] if group.request_id == 0 else rewards_that_differ(group)

    job = make_job(["train.completions_per_prompt=3"])
    made = stage(job, fake_roles(reward=FakeRewardServer(judge)))
    groups = play(made, made.rollouts.gather)
    assert [group.num_completions for group in groups] == [2, 3]
    assert groups[0].rewards.tolist() == [1.0, 2.0]
    assert all(len(group.versions) == group.num_tokens for group in groups)
    [failed] = made.seen(RewardFailed)
    assert (failed.request_id, failed.invalid.completion, failed.invalid.source) == (0, 0, "reward:fake")
    tally = made.rollouts.take_tally()
    assert (tally.num_invalid, tally.num_completions) == (1, 6)


def test_a_group_with_one_valid_completion_left_is_replaced(stage):
    def judge(group: RolloutGroup) -> list[Any]:
        return [LOST, 1.0] if group.request_id == 0 else rewards_that_differ(group)

    made = stage(make_job(), fake_roles(reward=FakeRewardServer(judge)))
    assert ids(play(made, made.rollouts.gather)) == [1, 2]
    assert [event.reason for event in made.seen(GroupDropped)] == ["too_few_valid"]


def test_too_many_failures_end_the_job_with_the_rewards_name_and_how_it_fails(stage):
    job = make_job(["reward_server.invalid_window=4", "reward_server.max_invalid_rate=0.25"])
    made = stage(job, fake_roles(reward=FakeRewardServer(lambda group: [LOST, LOST])))
    with pytest.raises(TooManyInvalid, match=r"reward 'fake' failed .* raised: ValueError: no such thing"):
        play(made, made.rollouts.gather)


def test_rewards_that_never_differ_end_the_job_and_say_why(stage):
    job = make_job(["limits.dropped_groups=5"])
    made = stage(job, fake_roles(reward=FakeRewardServer(lambda group: [1.0, 1.0])))
    with pytest.raises(DataError, match=r"groups in a row .* zero_variance.*limits\.dropped_groups"):
        play(made, made.rollouts.gather)
    assert 5 <= len(made.seen(GroupDropped)) <= 7


def test_only_drops_in_a_row_count_against_the_bound(stage):
    job = make_job(["limits.dropped_groups=3", "train.prompts_per_step=4"])
    judge = equal_for(*(number for number in range(40) if number % 2))
    made = stage(job, fake_roles(reward=FakeRewardServer(judge)))
    assert ids(play(made, made.rollouts.gather)) == [0, 2, 4, 6]
    assert len(made.seen(GroupDropped)) >= 3


class Raising:
    worker_id = "rollout-1"

    async def adopt(self, handle):
        return await scripted_worker().adopt(handle)

    async def run(self, requests):
        raise NotServing("rollout-1 serves nothing", role="rollout worker", worker_id="rollout-1", activity="run")
        yield ()

    async def close(self) -> None:
        pass


class Silent(Raising):
    async def run(self, requests):
        await asyncio.Event().wait()
        yield ()


class Forgetful(Raising):
    async def run(self, requests):
        return
        yield ()


def test_what_a_worker_raises_ends_the_gathering_unchanged(stage):
    made = stage(make_job(), fake_roles(Raising()))
    with pytest.raises(NotServing, match="rollout-1 serves nothing"):
        play(made, made.rollouts.gather)


def test_a_worker_that_never_answers_is_named_with_its_role_and_activity(stage):
    made = stage(make_job(["limits.generate_s=0.05"]), fake_roles(Silent()))
    with pytest.raises(RoleTimeout, match=r"rollout worker rollout-1 did not answer within 0\.05 s") as raised:
        play(made, made.rollouts.gather)
    assert raised.value.activity == "generating 2 groups"


def test_a_worker_that_forgets_prompts_is_named_instead_of_waited_for(stage):
    made = stage(make_job(), fake_roles(Forgetful()))
    with pytest.raises(RoleError, match="rollout-1 ended its answer with 2 of 2 groups missing"):
        play(made, made.rollouts.gather)


def test_a_reward_server_that_never_answers_is_named(stage):
    reward = FakeRewardServer(delay_s=60.0)
    made = stage(make_job(["limits.score_s=0.05"]), fake_roles(reward=reward))
    with pytest.raises(RoleTimeout, match=r"reward server reward-0 .* scoring"):
        play(made, made.rollouts.gather)


def test_an_algorithm_that_needs_the_reference_gets_its_column_and_invalid_ones_are_not_scored(stage):
    seen: list[int] = []

    class Scorer:
        async def logprobs(self, groups):
            seen.extend(group.num_completions for group in groups)
            return tuple(replace(group, reference_logprobs=np.zeros(group.num_tokens, np.float32)) for group in groups)

    job = make_job(["algorithm.kl_coef=0.1", "train.completions_per_prompt=3"])
    reward = FakeRewardServer(lambda group: [LOST, 1.0, 2.0])
    made = stage(job, fake_roles(reward=reward, reference_scorers={"reference-0": Scorer()}))
    groups = play(made, made.rollouts.gather)
    assert all(len(group.reference_logprobs) == group.num_tokens for group in groups)
    assert set(seen) == {2}


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_no_token_is_older_than_the_bound_whatever_the_workers_speeds(stage, max_staleness):
    num_steps = 8
    job = make_job([f"train.max_staleness={max_staleness}", f"train.num_steps={num_steps}", "train.prompts_per_step=3"])
    workers = [
        scripted_worker("rollout-0", token_s=0.0002, spread=1.0),
        scripted_worker("rollout-1", token_s=0.002, spread=1.0),
        scripted_worker("rollout-2"),
    ]
    made = stage(job, fake_roles(*workers))

    async def train() -> list[int]:
        ages = []
        for step in range(num_steps):
            groups = await made.rollouts.gather()
            ages += [step - group.oldest_version for group in groups]
            await made.next_version()
        return ages

    ages = play(made, train)
    assert max(ages) <= max_staleness
    if max_staleness == 0:
        assert set(ages) == {0}
    snapshot = made.rollouts.buffer.snapshot()
    assert (snapshot.num_in_flight, snapshot.num_complete) == (0, 0), "nothing is generated that no step would take"


def test_batches_come_oldest_first_even_when_the_young_finish_before(stage):
    job = make_job(["train.max_staleness=1", "train.num_steps=4", "train.prompts_per_step=2"])
    made = stage(job, fake_roles(scripted_worker("rollout-0", token_s=0.001, spread=1.5), scripted_worker("rollout-1")))

    async def train() -> list[int]:
        order = []
        for _ in range(4):
            order += ids(await made.rollouts.gather())
            await made.next_version()
        return order

    assert play(made, train) == list(range(8))


def test_a_resumed_job_goes_on_at_the_oldest_request_not_trained_on(stage, prompts):
    first = stage(make_job(["train.num_steps=3"]))

    async def two_steps() -> Any:
        trained = [*await first.rollouts.gather()]
        where = first.rollouts.position()
        await first.next_version()
        return trained, where, await first.rollouts.gather()

    _, (request_id, place), expected = play(first, two_steps)
    assert request_id == 2
    prompts.restore(place)
    again = stage(make_job(["train.num_steps=3"]), prompts=prompts, first_step=1, first_request_id=request_id)
    again.roles.learner.ranks[0].version = 1
    resumed = play(again, again.rollouts.gather)
    assert ids(resumed) == ids(expected) == [2, 3]
    for one, other in zip(resumed, expected, strict=True):
        assert one.prompt.prompt_id == other.prompt.prompt_id
        assert np.array_equal(one.token_ids, other.token_ids)


def test_closing_aborts_what_is_under_way(stage):
    worker = scripted_worker(token_s=0.01, eos_probability=0.0)
    made = stage(make_job(), fake_roles(worker))

    async def until(condition: Callable[[Any], bool]) -> None:
        for _ in range(5000):
            if condition(await worker.status()):
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"never came true: {await worker.status()}")

    async def feed_then_close() -> None:
        made.rollouts.feed()
        await until(lambda status: status.num_in_flight > 0)
        await made.rollouts.aclose()
        await until(lambda status: status.num_in_flight == 0)

    play(made, feed_then_close)
