"""Reward servers and reference scorers: any one answers, broken ones are replaced, a deadly group is found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhf_cluster.driver.scoring import DeadlyGroup, Scoring
from rlhf_cluster.errors import BudgetSpent, RoleTimeout
from rlhf_cluster.records.events import PromptQuarantined, StepDone, WorkerChanged
from rlhf_cluster.testing import make_group, make_job
from rlhf_cluster.testing.faults import FaultPlan
from rlhf_cluster.testing.faulty_roles import FaultyRole
from rlhf_cluster.testing.fleet import Pace, SimulatedRole, SimulatedRuntime

TWO = ["reward_server.num_workers=2", "recovery.unresponsive_s=10"]
NO_FAULTS = FaultPlan(seed=0)


def groups(num: int) -> list[Any]:
    return [replace(make_group([3, 2], request_id=i), rewards=None, reference_logprobs=None) for i in range(num)]


def scored(made: Any, *batches: list[Any], call: str = "rewarded") -> list[Any]:
    """What the calls give, one after another."""

    async def act(driver: Any, roles: Any) -> list[Any]:
        scoring = Scoring(made.job, rewards=roles.reward, references=roles.reference)
        return [await getattr(scoring, call)(batch) for batch in batches]

    return made.play(act)


def servers(change: Callable[[SimulatedRole], Any], **pace: Any) -> SimulatedRuntime:
    """`change` may return another handle for a reward server."""

    def wrap(role: SimulatedRole) -> Any:
        return (role.role in ("reward server", "reference scorer") and change(role)) or role

    return SimulatedRuntime(Pace(**pace), wrap=wrap)


def lost(made: Any) -> list[str]:
    return [event.worker_id for event in made.seen(WorkerChanged) if event.state == "lost"]


def test_servers_answer_in_turn(stage):
    asked: list[str] = []

    class Notes(FaultyRole):
        async def score(self, given: Any) -> Any:
            asked.append(self._role.worker_id)
            return await self._role.score(given)

    made = stage(make_job(TWO), servers(lambda role: Notes(role, NO_FAULTS)))
    scored(made, groups(1), groups(2), groups(1))
    assert asked == ["reward-0", "reward-1", "reward-0"]


def test_groups_come_back_in_order_with_rewards(stage):
    [answer] = scored(stage(make_job(TWO), SimulatedRuntime()), groups(3))
    assert [group.request_id for group in answer] == [0, 1, 2]
    assert all(group.rewards.tolist() == [0.0, 1.0] for group in answer)


def test_without_servers_or_groups_nothing_is_asked(stage):
    made = stage(make_job(["algorithm.type=sft", "rewards=[]", "train.learn_from=rollouts"]), SimulatedRuntime())
    batch = groups(1)
    assert scored(made, batch, []) == [tuple(batch), ()]
    assert {role.role for role in made.runtime.opened} == {"rollout worker", "learner"}


@pytest.mark.parametrize("how", ["kill", "hang"])
def test_a_server_that_is_lost_is_passed_over_and_replaced(stage, how):
    def strike(role: SimulatedRole) -> None:
        if role.worker_id == "reward-0":
            asyncio.get_running_loop().call_later(5.0, getattr(role, how))

    made = stage(make_job(TWO), servers(strike, score_s=10.0))
    [answer] = scored(made, groups(2))
    assert all(group.rewards is not None for group in answer)
    assert lost(made) == ["reward-0"]
    assert "reward-2" in [role.worker_id for role in made.runtime.opened]


class ForgetsOne(FaultyRole):
    async def score(self, given: Any) -> Any:
        return (await self._role.score(given))[1:]


class OtherTokens(FaultyRole):
    async def score(self, given: Any) -> Any:
        return tuple(replace(g, token_ids=g.token_ids + 1) for g in await self._role.score(given))


class SilentFailure(FaultyRole):
    async def score(self, given: Any) -> Any:
        nothing = np.full(2, np.nan, np.float32)
        return tuple(replace(g, rewards=nothing) for g in await self._role.score(given))


@pytest.mark.parametrize("broken", [ForgetsOne, OtherTokens, SilentFailure])
def test_a_server_that_answers_garbage_is_replaced_and_another_is_asked(stage, broken):
    change = lambda role: broken(role, NO_FAULTS) if role.worker_id == "reward-0" else None  # noqa: E731
    made = stage(make_job(TWO), servers(change))
    [answer] = scored(made, groups(2))
    assert [group.rewards.tolist() for group in answer] == [[0.0, 1.0]] * 2
    [event] = [event for event in made.seen(WorkerChanged) if event.state == "lost"]
    assert "reward-0 gave an answer that cannot be true" in event.reason


class DiesOfThree(FaultyRole):
    async def score(self, given: Any) -> Any:
        self._look_at(given)
        return await self._role.score(given)

    async def logprobs(self, given: Any) -> Any:
        self._look_at(given)
        return await self._role.logprobs(given)

    def _look_at(self, given: Any) -> None:
        if any(group.request_id == 3 for group in given):
            self._role.kill("died of request 3")


def test_a_group_that_servers_die_of_is_found_among_others(stage):
    made = stage(make_job([*TWO, "recovery.max_restarts=20"]), servers(lambda role: DiesOfThree(role, NO_FAULTS)))
    with pytest.raises(DeadlyGroup) as raised:
        scored(made, groups(6))
    assert raised.value.group.request_id == 3
    assert len(raised.value.evidence) == made.job.recovery.max_deaths
    assert all("died of request 3" in line for line in raised.value.evidence)


def test_a_job_leaves_the_prompt_out_that_servers_die_of_and_trains_on_the_others(stage):
    job = make_job([*TWO, "recovery.max_restarts=20", "train.prompts_per_step=4"])
    made = stage(job, servers(lambda role: DiesOfThree(role, NO_FAULTS)))
    made.drive()
    [event] = made.seen(PromptQuarantined)
    assert event.request_id == 3
    trained = [group.request_id for done in made.seen(StepDone) for group in done.groups]
    assert 3 not in trained
    assert len(trained) == 8


def test_a_pool_that_may_replace_no_more_ends_the_wait_with_the_cause(stage):
    made = stage(make_job(["recovery.max_restarts=0"]), servers(lambda role: DiesOfThree(role, NO_FAULTS)))
    with pytest.raises(BudgetSpent, match=r"reward server reward-0 was lost .* died of request 3"):
        scored(made, groups(6))


def test_a_wait_for_a_server_that_never_starts_is_bounded_and_says_why(stage):
    made = stage(make_job(["limits.start_s=30"]), servers(lambda role: DiesOfThree(role, NO_FAULTS)))

    async def act(driver: Any, roles: Any) -> None:
        made.runtime.pace = Pace(place_s=1e9)
        await Scoring(made.job, rewards=roles.reward, references=None).rewarded(groups(6))

    with pytest.raises(RoleTimeout, match=r"no reward server has served for 60 s: reward-2 is pending"):
        made.play(act)


def test_reference_scorers_fail_over_too(stage):
    def strike(role: SimulatedRole) -> None:
        if role.worker_id == "reference-0":
            asyncio.get_running_loop().call_later(5.0, role.kill)

    made = stage(make_job(["algorithm.kl_coef=0.1"]), servers(strike, score_s=10.0))
    [answer] = scored(made, groups(2), call="referenced")
    assert all(len(group.reference_logprobs) == group.num_tokens for group in answer)
    assert lost(made) == ["reference-0"]


def test_rewards_are_counted_once_where_reference_scorers_die_of_a_prompt_afterwards(stage):
    def wrap(role: SimulatedRole) -> Any:
        return DiesOfThree(role, NO_FAULTS) if role.role == "reference scorer" else None

    job = make_job(["algorithm.kl_coef=0.1", "recovery.max_restarts=20", "train.prompts_per_step=4"])
    made = stage(job, servers(wrap))

    async def act(driver: Any, roles: Any) -> Any:
        await made.serve(driver)
        batch = await driver.feed.gather()
        return [group.request_id for group in batch], driver.feed.take_tally().num_completions

    trained, num_completions = made.play(act)
    assert 3 not in trained
    assert num_completions == 5 * job.train.completions_per_prompt, "four that are trained on and the one left out"


def test_a_server_that_is_drained_answers_what_it_has_and_is_closed(stage):
    made = stage(make_job(TWO), SimulatedRuntime(Pace(score_s=5.0)))

    async def act(driver: Any, roles: Any) -> None:
        scoring = Scoring(made.job, rewards=roles.reward, references=None)
        answers = [asyncio.create_task(scoring.rewarded(groups(1))) for _ in range(2)]
        await asyncio.sleep(1.0)
        roles.reward.resize(1)
        assert list(roles.reward.draining()) == ["reward-1"]
        assert all(group.rewards is not None for [group] in await asyncio.gather(*answers))
        assert list(roles.reward.draining()) == []

    made.play(act)
    assert [event.worker_id for event in made.seen(WorkerChanged) if event.state == "closed"] == ["reward-1"]
    assert lost(made) == []


def test_a_server_that_is_drained_while_nothing_is_asked_of_it_is_closed_at_once(stage):
    made = stage(make_job(TWO), SimulatedRuntime())

    async def act(driver: Any, roles: Any) -> list[str]:
        roles.reward.resize(1)
        await asyncio.sleep(1.0)
        return list(roles.reward.draining())

    assert made.play(act) == []
